// A binding in both directions: what the app creates comes back as an event. Put your system in its place.
package main

import (
	"context"
	"sync"

	"microdapr.io/plugin"
)

type binding struct {
	mu     sync.Mutex
	items  map[string][]byte
	events chan []byte
}

func (b *binding) Init(ctx context.Context, md plugin.Metadata) error { return nil }

func (b *binding) Operations() []string { return []string{"create", "get", "delete"} }

func (b *binding) Invoke(ctx context.Context, r *plugin.InvokeRequest) (*plugin.InvokeResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := r.Metadata["key"]
	data, there := b.items[key]
	switch {
	case r.Operation == "create":
		b.items[key] = r.Data
		select {
		case b.events <- r.Data:
		default: // nobody listens
		}
		return nil, nil
	case r.Operation == "delete":
		delete(b.items, key)
		return nil, nil
	case !there:
		return nil, plugin.Errorf(plugin.NotFound, "there is nothing at %s", key)
	}
	return &plugin.InvokeResponse{Data: data}, nil
}

func (b *binding) Read(ctx context.Context, deliver func(*plugin.Message) ([]byte, error)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case data := <-b.events:
			if _, err := deliver(&plugin.Message{Data: data}); err != nil { // the app failed: again
				b.events <- data
			}
		}
	}
}

var version = "0.0.0" // that of plugin.yaml, from the Makefile

func main() {
	plugin.Main(plugin.Plugin{Name: "bindings.gostore", Version: version, Types: []plugin.Type{
		{Type: "bindings.gostore", New: func() any { return &binding{items: map[string][]byte{}, events: make(chan []byte, 1000)} }}}})
}
