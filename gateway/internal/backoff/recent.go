package backoff

import (
	"container/list"
	"time"
)

// entry is what is known of an address, a name or a pair.
type entry struct {
	failures int
	last     time.Time // of the last failure, or of the success that made it trusted
}

// fail counts a failure.
func (e *entry) fail(now time.Time) {
	if e.failures < 1<<30 {
		e.failures++
	}
	e.last = now
}

// recent is a table that keeps the entries which were touched last.
type recent[K comparable] struct {
	limit int
	at    map[K]*list.Element
	order *list.List // of *keyed[K]; the one touched last is in front
}

type keyed[K comparable] struct {
	key K
	entry
}

func newRecent[K comparable](limit int) *recent[K] {
	return &recent[K]{limit: limit, at: map[K]*list.Element{}, order: list.New()}
}

// find returns the entry of a key, nil if there is none or it is older than forget.
func (r *recent[K]) find(key K, now time.Time, forget time.Duration) *entry {
	el := r.at[key]
	if el == nil {
		return nil
	}
	k := el.Value.(*keyed[K])
	if now.Sub(k.last) >= forget {
		r.drop(el)
		return nil
	}
	return &k.entry
}

// touch returns the entry of a key, a new one if there is none, and puts it in front.
func (r *recent[K]) touch(key K, now time.Time, forget time.Duration) *entry {
	if r.find(key, now, forget) == nil {
		if len(r.at) >= r.limit {
			r.drop(r.order.Back())
		}
		r.at[key] = r.order.PushFront(&keyed[K]{key: key, entry: entry{last: now}})
	}
	el := r.at[key]
	r.order.MoveToFront(el)
	return &el.Value.(*keyed[K]).entry
}

func (r *recent[K]) drop(el *list.Element) {
	delete(r.at, el.Value.(*keyed[K]).key)
	r.order.Remove(el)
}
