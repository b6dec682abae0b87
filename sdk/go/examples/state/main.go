// A state store in memory: the whole of a plugin.
package main

import (
	"context"
	"strconv"
	"sync"
	"time"

	"microdapr.io/plugin"
)

type item struct {
	plugin.Item
	expires time.Time // zero = never
}
type store struct {
	mu    sync.Mutex
	items map[string]*item
	last  int
}

// find gives the item of a key; nil when there is none, or no more.
func (s *store) find(key string) *item {
	x := s.items[key]
	if x != nil && !x.expires.IsZero() && time.Now().After(x.expires) {
		return nil
	}
	return x
}
func (s *store) check(x *item, etag string, firstWrite bool) error {
	if _, err := strconv.Atoi(etag); etag != "" && err != nil {
		return plugin.EtagInvalid("%s is not a number", etag)
	}
	if (etag != "" && (x == nil || x.Etag != etag)) || (etag == "" && firstWrite && x != nil) {
		return plugin.EtagMismatch("it is not the current one")
	}
	return nil
}

func (s *store) Init(ctx context.Context, md plugin.Metadata) error { return nil }
func (s *store) Get(ctx context.Context, r *plugin.GetRequest) (*plugin.Item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.find(r.Key); x != nil {
		return &x.Item, nil
	}
	return nil, nil
}

func (s *store) Set(ctx context.Context, r *plugin.SetRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(s.find(r.Key), r.Etag, r.FirstWrite); err != nil {
		return err
	}
	s.last++
	x := &item{Item: plugin.Item{Value: r.Value, Etag: strconv.Itoa(s.last), ContentType: r.ContentType}}
	if r.TTLSeconds > 0 {
		x.expires = time.Now().Add(time.Duration(r.TTLSeconds) * time.Second)
	}
	s.items[r.Key] = x
	return nil
}

func (s *store) Delete(ctx context.Context, r *plugin.DeleteRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(s.find(r.Key), r.Etag, false); err != nil {
		return err
	}
	delete(s.items, r.Key)
	return nil
}

var version = "0.0.0" // that of plugin.yaml, from the Makefile

func main() {
	plugin.Main(plugin.Plugin{Name: "state.gostore", Version: version, Types: []plugin.Type{{Type: "state.gostore",
		Features: []string{"ETAG", "TTL"}, New: func() any { return &store{items: map[string]*item{}} }}}})
}
