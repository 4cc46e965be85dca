package extent

import "fmt"

// VersionError means that the directory, or a value in it, has a format that this program does not know: it was
// written by a newer one. Nothing was touched.
type VersionError struct {
	// What names the file or value.
	What        string
	Have, Knows uint32
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("blockstore: %s has format %d, this program knows up to %d", e.What, e.Have, e.Knows)
}

// CorruptError means that something other than a block's data is damaged or missing: the store can not be opened or
// that part of it not be used, and the peers on this disk have to be rebuilt.
type CorruptError struct {
	// What names the file or value and says what is wrong with it.
	What string
	Err  error
}

func (e *CorruptError) Error() string {
	if e.Err == nil {
		return "blockstore: damaged: " + e.What
	}
	return fmt.Sprintf("blockstore: damaged: %s: %v", e.What, e.Err)
}
func (e *CorruptError) Unwrap() error { return e.Err }
