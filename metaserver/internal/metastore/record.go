package metastore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// encodingJSON is the first byte of a record that is JSON.
const encodingJSON = 1

// ErrEncoding is returned for a record in an encoding that this version does not know.
var ErrEncoding = errors.New("unknown encoding of a record")

// Encode gives the bytes of a record.
func Encode(v any) ([]byte, error) {
	j, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append([]byte{encodingJSON}, j...), nil
}

// Decode reads a record into v. Fields that v does not have are ignored.
func Decode(record []byte, v any) error {
	if len(record) == 0 || record[0] != encodingJSON {
		return ErrEncoding
	}
	if err := json.Unmarshal(record[1:], v); err != nil {
		return fmt.Errorf("damaged record: %w", err)
	}
	return nil
}

// LoadAll reads a whole table into records of type T, in the order of their keys.
func LoadAll[T any](ctx context.Context, s *Store, table string, f func(key string, v *T) error) error {
	return s.Load(ctx, table, func(key string, rec []byte) error {
		v := new(T)
		if err := Decode(rec, v); err != nil {
			return err
		}
		return f(key, v)
	})
}

// refused tells whether etcd answered that it will not do it, so that the outcome is certain.
func refused(err error) bool {
	for _, e := range []error{
		rpctypes.ErrTooManyOps, rpctypes.ErrRequestTooLarge, rpctypes.ErrNoSpace, rpctypes.ErrDuplicateKey,
		rpctypes.ErrPermissionDenied, rpctypes.ErrUserEmpty, rpctypes.ErrInvalidAuthToken, rpctypes.ErrEmptyKey,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
