package reservation

import "context"

// accessKey is the context key of what WithAccess binds.
type accessKey struct{}

// bound is a context that WithAccess made.
type bound struct {
	context.Context
	access uint64
}

// Value implements context.Context.
func (b *bound) Value(key any) any {
	if key == (accessKey{}) {
		return b
	}
	return b.Context.Value(key)
}

// WithAccess binds what is done under the context to the access generation of the state by which it was judged: it is never
// sent to the store under a higher one, but refused so that it is judged again. access is not 0.
func WithAccess(ctx context.Context, access uint64) context.Context {
	return &bound{ctx, access}
}

// AccessOf returns the access generation that a context is bound to, 0 when it is not bound.
func AccessOf(ctx context.Context) uint64 {
	if b, ok := ctx.Value(accessKey{}).(*bound); ok {
		return b.access
	}
	return 0
}

// Exempt frees a context that was bound, for work that goes on whoever reserves the logical unit.
func Exempt(ctx context.Context) context.Context { return &bound{ctx, 0} }

// Unbound returns the context as it was before WithAccess, for work on another logical unit: it is judged by the state of
// that one.
func Unbound(ctx context.Context) context.Context { return &bound{ctx, 0} }
