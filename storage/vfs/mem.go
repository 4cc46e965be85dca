package vfs

import (
	"errors"
	"io"
	iofs "io/fs"
	"path"
	"sort"
	"strings"
	"sync"
	"syscall"
)

// memCapacity is the size of a Mem unless SetCapacity says otherwise, in bytes.
const memCapacity = 1 << 40

// Mem is a file system in memory that can crash: it knows for every file and directory what a Sync has made durable
// and what not, and Crash loses a choice of the rest. It is safe for concurrent use.
type Mem struct {
	mu struct {
		sync.RWMutex
		root *memNode
		// txs are the directory operations that no Dir.Sync has covered yet, in order.
		txs []*memTx
		// used counts the pages that files with a name have allocated.
		used     int64
		capacity int64
	}
}

var _ FS = (*Mem)(nil)

// NewMem returns an empty file system whose root directory exists.
func NewMem() *Mem {
	m := &Mem{}
	m.mu.root = newMemDir()
	m.mu.capacity = memCapacity
	return m
}

// SetCapacity sets the size of the file system in bytes. Writes and preallocations beyond it are ENOSPC.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.capacity = bytes
}

// memNode is a file or a directory. It is guarded by the mutex of its Mem.
type memNode struct {
	isDir bool
	links int  // names that it has
	held  bool // Lock is held

	// Of a directory: the names as seen, the names that are durable, and the changes between them in order.
	children map[string]*memNode
	durable  map[string]*memNode
	pending  []memEffect

	// Of a file.
	memData
}

// memTx is one directory operation: it survives a crash as a whole or not at all.
type memTx struct {
	node *memNode
	done bool // durable
}

// memEffect is what a memTx changes in one directory: it links node under name, or unlinks it.
type memEffect struct {
	tx     *memTx
	name   string
	unlink bool
}

func (e memEffect) apply(names map[string]*memNode) {
	switch {
	case !e.unlink:
		names[e.name] = e.tx.node
	case names[e.name] == e.tx.node:
		delete(names, e.name)
	}
}

func newMemDir() *memNode {
	return &memNode{isDir: true, children: map[string]*memNode{}, durable: map[string]*memNode{}}
}

func newMemFile() *memNode { return &memNode{memData: newMemData()} }

// split cleans a path and cuts it into its elements; the root has none.
func split(name string) []string {
	p := strings.TrimPrefix(path.Clean("/"+name), "/")
	if p == "" {
		return nil
	}
	return strings.Split(p, "/")
}

func (m *Mem) findLocked(op, name string) (*memNode, error) {
	n := m.mu.root
	for _, el := range split(name) {
		if !n.isDir {
			return nil, pathErr(op, name, syscall.ENOTDIR)
		}
		child, ok := n.children[el]
		if !ok {
			return nil, pathErr(op, name, iofs.ErrNotExist)
		}
		n = child
	}
	return n, nil
}

// parentLocked returns the directory that holds name and name's last element.
func (m *Mem) parentLocked(op, name string) (*memNode, string, error) {
	els := split(name)
	if len(els) == 0 {
		return nil, "", pathErr(op, name, syscall.EINVAL)
	}
	dir, err := m.findLocked(op, strings.Join(els[:len(els)-1], "/"))
	if err != nil {
		return nil, "", err
	}
	if !dir.isDir {
		return nil, "", pathErr(op, name, syscall.ENOTDIR)
	}
	return dir, els[len(els)-1], nil
}

func pathErr(op, name string, err error) error {
	return &iofs.PathError{Op: op, Path: name, Err: err}
}

func (m *Mem) beginLocked(node *memNode) *memTx {
	tx := &memTx{node: node}
	m.mu.txs = append(m.mu.txs, tx)
	return tx
}

func (m *Mem) linkLocked(tx *memTx, dir *memNode, name string) {
	if old := dir.children[name]; old != nil {
		m.dropLinkLocked(old)
	}
	dir.children[name] = tx.node
	dir.pending = append(dir.pending, memEffect{tx: tx, name: name})
	if tx.node.links++; tx.node.links == 1 {
		m.mu.used += int64(len(tx.node.pages))
	}
}

func (m *Mem) unlinkLocked(tx *memTx, dir *memNode, name string) {
	delete(dir.children, name)
	dir.pending = append(dir.pending, memEffect{tx: tx, name: name, unlink: true})
	m.dropLinkLocked(tx.node)
}

func (m *Mem) dropLinkLocked(n *memNode) {
	if n.links--; n.links == 0 {
		m.mu.used -= int64(len(n.pages))
	}
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.createLocked("create", name)
}

func (m *Mem) createLocked(op, name string) (File, error) {
	dir, base, err := m.parentLocked(op, name)
	if err != nil {
		return nil, err
	}
	if dir.children[base] != nil {
		return nil, pathErr(op, name, iofs.ErrExist)
	}
	n := newMemFile()
	m.linkLocked(m.beginLocked(n), dir, base)
	return &memFile{fs: m, node: n, name: name, write: true}, nil
}

// Open implements FS.
func (m *Mem) Open(name string, flags OpenFlags) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.findLocked("open", name)
	if errors.Is(err, iofs.ErrNotExist) && flags&CreateMissing != 0 {
		return m.createLocked("open", name)
	}
	if err != nil {
		return nil, err
	}
	if n.isDir {
		return nil, pathErr("open", name, syscall.EISDIR)
	}
	return &memFile{fs: m, node: n, name: name, write: flags&(ReadWrite|CreateMissing) != 0, direct: flags&Direct != 0}, nil
}

// OpenDir implements FS.
func (m *Mem) OpenDir(name string) (Dir, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.findLocked("opendir", name)
	if err != nil {
		return nil, err
	}
	if !n.isDir {
		return nil, pathErr("opendir", name, syscall.ENOTDIR)
	}
	return &memDir{fs: m, node: n}, nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parentLocked("remove", name)
	if err != nil {
		return err
	}
	n := dir.children[base]
	switch {
	case n == nil:
		return pathErr("remove", name, iofs.ErrNotExist)
	case n.isDir && len(n.children) > 0:
		return pathErr("remove", name, syscall.ENOTEMPTY)
	}
	m.unlinkLocked(m.beginLocked(n), dir, base)
	return nil
}

// Rename implements FS. It renames files only.
func (m *Mem) Rename(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, oldbase, err := m.parentLocked("rename", oldname)
	if err != nil {
		return err
	}
	to, newbase, err := m.parentLocked("rename", newname)
	if err != nil {
		return err
	}
	n, target := from.children[oldbase], to.children[newbase]
	switch {
	case n == nil:
		return pathErr("rename", oldname, iofs.ErrNotExist)
	case n.isDir || target != nil && target.isDir:
		return pathErr("rename", oldname, syscall.EISDIR)
	case n == target:
		return nil
	}
	tx := m.beginLocked(n)
	m.linkLocked(tx, to, newbase)
	m.unlinkLocked(tx, from, oldbase)
	return nil
}

// List implements FS.
func (m *Mem) List(dir string) ([]string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.findLocked("list", dir)
	if err != nil {
		return nil, err
	}
	if !n.isDir {
		return nil, pathErr("list", dir, syscall.ENOTDIR)
	}
	return sortedNames(n.children), nil
}

func sortedNames(nodes map[string]*memNode) []string {
	names := make([]string, 0, len(nodes))
	for name := range nodes {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.mu.root
	for _, el := range split(dir) {
		child := n.children[el]
		if child == nil {
			child = newMemDir()
			m.linkLocked(m.beginLocked(child), n, el)
		}
		if !child.isDir {
			return pathErr("mkdir", dir, syscall.ENOTDIR)
		}
		n = child
	}
	return nil
}

// Stat implements FS.
func (m *Mem) Stat(name string) (Info, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.findLocked("stat", name)
	if err != nil {
		return Info{}, err
	}
	return Info{Size: n.size, Allocated: int64(len(n.pages)) * memPage, IsDir: n.isDir}, nil
}

// Lock implements FS. A Crash releases all locks of the file system that it yields.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.findLocked("lock", name)
	if errors.Is(err, iofs.ErrNotExist) {
		if _, err = m.createLocked("lock", name); err == nil {
			n, err = m.findLocked("lock", name)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case n.isDir:
		return nil, pathErr("lock", name, syscall.EISDIR)
	case n.held:
		return nil, pathErr("lock", name, ErrLocked)
	}
	n.held = true
	return &memLock{fs: m, node: n}, nil
}

type memLock struct {
	fs   *Mem
	node *memNode
	once sync.Once
}

func (l *memLock) Close() error {
	l.once.Do(func() {
		l.fs.mu.Lock()
		defer l.fs.mu.Unlock()
		l.node.held = false
	})
	return nil
}

// Space implements FS.
func (m *Mem) Space(dir string) (Space, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if _, err := m.findLocked("statfs", dir); err != nil {
		return Space{}, err
	}
	return Space{Total: m.mu.capacity, Free: max(0, m.mu.capacity-m.mu.used*memPage)}, nil
}

type memDir struct {
	fs   *Mem
	node *memNode
}

// Sync makes the directory's changes durable. Of a rename between two directories it makes both halves durable.
func (d *memDir) Sync() error {
	m := d.fs
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range d.node.pending {
		e.apply(d.node.durable)
		e.tx.done = true
	}
	d.node.pending = nil
	rest := m.mu.txs[:0]
	for _, tx := range m.mu.txs {
		if !tx.done {
			rest = append(rest, tx)
		}
	}
	clear(m.mu.txs[len(rest):])
	m.mu.txs = rest
	return nil
}

func (d *memDir) Close() error { return nil }
