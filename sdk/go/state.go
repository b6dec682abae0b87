package plugin

import (
	"context"
	"strconv"
)

// StateStore is a component of kind state. Further abilities are further interfaces: Transactor, KeysLiker, PrefixDeleter, Pinger,
// Closer. Bulk calls run the single ones unless BulkGetter is there.
type StateStore interface {
	// Init may run while an older process of the same component serves, and writes.
	Init(ctx context.Context, metadata Metadata) error
	// Get gives nil, nil for a key that is not there.
	Get(ctx context.Context, r *GetRequest) (*Item, error)
	// Set must keep r.Etag and r.FirstWrite: EtagMismatch when the item is not the one that the caller has seen.
	Set(ctx context.Context, r *SetRequest) error
	// Delete of a key that is not there is no error, unless an ETag was given.
	Delete(ctx context.Context, r *DeleteRequest) error
}

// Transactor runs all operations or none.
type Transactor interface {
	Transact(ctx context.Context, ops []Operation, metadata map[string]string) error
}

// BulkGetter gives one item for each request, nil where there is none.
type BulkGetter interface {
	BulkGet(ctx context.Context, r []GetRequest) ([]*Item, error)
}

// KeysLiker lists keys by a SQL LIKE pattern with \ as escape, a page at a time.
type KeysLiker interface {
	KeysLike(ctx context.Context, pattern, token string, pageSize uint32) (keys []string, next string, err error)
}

// PrefixDeleter deletes all keys that begin with the prefix.
type PrefixDeleter interface {
	DeleteWithPrefix(ctx context.Context, prefix string) (int64, error)
}

// Item is a stored value.
type Item struct {
	Value       []byte
	Etag        string // "" = none
	ContentType string
	Metadata    map[string]string
}
type etag struct {
	Value string `pb:"1"`
}
type stateOptions struct {
	Concurrency int32 `pb:"1"`
	Consistency int32 `pb:"2"`
}

// GetRequest asks for one key.
type GetRequest struct {
	Key         string            `pb:"1"`
	Metadata    map[string]string `pb:"2"`
	Consistency int32             `pb:"3"`
}

// SetRequest stores one value.
type SetRequest struct {
	Key         string            `pb:"1"`
	Value       []byte            `pb:"2"`
	EtagField   *etag             `pb:"3"`
	Metadata    map[string]string `pb:"4"`
	Options     stateOptions      `pb:"5"`
	ContentType string            `pb:"6"`

	Etag       string // "" = not given
	FirstWrite bool   // without an ETag: only when the key is not there
	TTLSeconds int64  // 0 = none given, -1 = the item stays for ever; a write without one takes the old one away
}

// DeleteRequest removes one key.
type DeleteRequest struct {
	Key       string            `pb:"1"`
	EtagField *etag             `pb:"2"`
	Metadata  map[string]string `pb:"3"`
	Options   stateOptions      `pb:"4"`

	Etag       string
	FirstWrite bool
}

// Operation of a transaction: one of the two.
type Operation struct {
	Delete *DeleteRequest `pb:"1"`
	Set    *SetRequest    `pb:"2"`
}

const firstWrite = 1

func (r *SetRequest) prepare() error {
	if r.EtagField != nil {
		r.Etag = r.EtagField.Value
	}
	r.FirstWrite = r.Options.Concurrency == firstWrite
	v, ok := r.Metadata["ttlInSeconds"]
	if !ok || v == "" {
		return nil
	}
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil {
		return Errorf(InvalidArgument, "incorrect value for metadata 'ttlInSeconds': %v", err)
	}
	if n < -1 {
		return Errorf(InvalidArgument, "incorrect value for metadata 'ttlInSeconds': must be -1 or greater")
	}
	r.TTLSeconds = n
	return nil
}

func (r *DeleteRequest) prepare() {
	if r.EtagField != nil {
		r.Etag = r.EtagField.Value
	}
	r.FirstWrite = r.Options.Concurrency == firstWrite
}

type getResponse struct {
	Data        []byte            `pb:"1"`
	Etag        *etag             `pb:"2"`
	Metadata    map[string]string `pb:"3"`
	ContentType string            `pb:"4"`
}
type bulkGetRequest struct {
	Items []GetRequest `pb:"1"`
}
type bulkItem struct {
	Key         string            `pb:"1"`
	Data        []byte            `pb:"2"`
	Etag        *etag             `pb:"3"`
	Error       string            `pb:"4"`
	Metadata    map[string]string `pb:"5"`
	ContentType string            `pb:"6"`
}
type bulkGetResponse struct {
	Items []bulkItem `pb:"1"`
}
type bulkSetRequest struct {
	Items []*SetRequest `pb:"1"`
}
type bulkDeleteRequest struct {
	Items []*DeleteRequest `pb:"1"`
}
type transactRequest struct {
	Operations []Operation       `pb:"1"`
	Metadata   map[string]string `pb:"2"`
}
type keysLikeRequest struct {
	Pattern string  `pb:"1"`
	Token   string  `pb:"2"`
	Page    *uint32 `pb:"3"`
}
type keysLikeResponse struct {
	Keys  []string `pb:"1"`
	Token string   `pb:"2"`
}
type prefixRequest struct {
	Prefix string `pb:"1"`
}
type prefixResponse struct {
	Count int64 `pb:"1"`
}

func etagOf(v string) *etag {
	if v == "" {
		return nil
	}
	return &etag{v}
}

func bulkGet(ctx context.Context, o StateStore, in *bulkGetRequest) (*bulkGetResponse, error) {
	out := &bulkGetResponse{Items: make([]bulkItem, len(in.Items))}
	var all []*Item
	if b, ok := o.(BulkGetter); ok {
		var err error
		if all, err = b.BulkGet(ctx, in.Items); err != nil {
			return nil, err
		}
	}
	for i := range in.Items {
		to, item := &out.Items[i], (*Item)(nil)
		to.Key = in.Items[i].Key
		if i < len(all) {
			item = all[i]
		} else if all == nil {
			var err error
			if item, err = o.Get(ctx, &in.Items[i]); err != nil {
				to.Error = err.Error()
				continue
			}
		}
		if item != nil {
			to.Data, to.Etag, to.Metadata, to.ContentType = item.Value, etagOf(item.Etag), item.Metadata, item.ContentType
		}
	}
	return out, nil
}

func transact(ctx context.Context, o Transactor, in *transactRequest) (*empty, error) {
	for _, op := range in.Operations {
		if op.Set != nil {
			if err := op.Set.prepare(); err != nil {
				return nil, err
			}
		} else if op.Delete != nil {
			op.Delete.prepare()
		}
	}
	return nil, o.Transact(ctx, in.Operations, in.Metadata)
}

func addState(rt *runtime) {
	const kind = "state"
	rt.add("dapr.proto.components.v1.StateStore", append(rt.common(kind, true),
		on(rt, kind, "Get", true, func(ctx context.Context, o StateStore, in *GetRequest) (*getResponse, error) {
			item, err := o.Get(ctx, in)
			if err != nil || item == nil {
				return nil, err
			}
			return &getResponse{item.Value, etagOf(item.Etag), item.Metadata, item.ContentType}, nil
		}),
		on(rt, kind, "Set", false, func(ctx context.Context, o StateStore, in *SetRequest) (*empty, error) {
			if err := in.prepare(); err != nil {
				return nil, err
			}
			return nil, o.Set(ctx, in)
		}),
		on(rt, kind, "Delete", false, func(ctx context.Context, o StateStore, in *DeleteRequest) (*empty, error) {
			in.prepare()
			return nil, o.Delete(ctx, in)
		}),
		on(rt, kind, "BulkGet", true, bulkGet),
		on(rt, kind, "BulkSet", false, func(ctx context.Context, o StateStore, in *bulkSetRequest) (*empty, error) {
			keys, errs := make([]string, len(in.Items)), make([]error, len(in.Items))
			for i, one := range in.Items {
				keys[i] = one.Key
				if errs[i] = one.prepare(); errs[i] == nil {
					errs[i] = o.Set(ctx, one)
				}
			}
			return nil, bulkError(keys, errs)
		}),
		on(rt, kind, "BulkDelete", false, func(ctx context.Context, o StateStore, in *bulkDeleteRequest) (*empty, error) {
			keys, errs := make([]string, len(in.Items)), make([]error, len(in.Items))
			for i, one := range in.Items {
				one.prepare()
				keys[i], errs[i] = one.Key, o.Delete(ctx, one)
			}
			return nil, bulkError(keys, errs)
		})))
	var have struct{ tx, keys, prefix bool }
	for i := range rt.plugin.Types {
		o := rt.plugin.Types[i].object()
		if _, ok := o.(Transactor); ok {
			have.tx = true
		}
		if _, ok := o.(KeysLiker); ok {
			have.keys = true
		}
		if _, ok := o.(PrefixDeleter); ok {
			have.prefix = true
		}
	}
	if have.tx {
		rt.add("dapr.proto.components.v1.TransactionalStateStore", []Method{on(rt, kind, "Transact", false, transact)})
	}
	var extra []Method
	if have.keys {
		extra = append(extra, on(rt, kind, "KeysLike", true, func(ctx context.Context, o KeysLiker, in *keysLikeRequest) (*keysLikeResponse, error) {
			if in.Pattern == "" {
				return nil, Errorf(InvalidArgument, "keys like pattern cannot be empty")
			}
			page := uint32(0)
			if in.Page != nil {
				page = *in.Page
			}
			keys, token, err := o.KeysLike(ctx, in.Pattern, in.Token, page)
			return &keysLikeResponse{keys, token}, err
		}))
	}
	if have.prefix {
		extra = append(extra, on(rt, kind, "DeleteWithPrefix", true, func(ctx context.Context, o PrefixDeleter, in *prefixRequest) (*prefixResponse, error) {
			if in.Prefix == "" {
				return nil, Errorf(InvalidArgument, "a prefix is required for deleteWithPrefix request")
			}
			n, err := o.DeleteWithPrefix(ctx, in.Prefix)
			return &prefixResponse{n}, err
		}))
	}
	if extra != nil {
		rt.add("microdapr.plugin.v1.StateStoreExtra", extra)
	}
}
