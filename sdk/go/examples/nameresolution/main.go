// Names of sidecars in this process only: put your registry in its place.
package main

import (
	"context"
	"fmt"
	"sync"

	"microdapr.io/plugin"
)

var (
	mu       sync.Mutex
	registry = map[*resolver]*plugin.Sidecar{}
)

type resolver struct{ name string }

func (r *resolver) Init(ctx context.Context, md plugin.Metadata) error {
	mu.Lock()
	defer mu.Unlock()
	registry[r] = plugin.SidecarOf(ctx)
	return nil
}

func (r *resolver) Close() error {
	mu.Lock()
	defer mu.Unlock()
	delete(registry, r)
	return nil
}

func (r *resolver) Resolve(ctx context.Context, in *plugin.ResolveRequest) ([]string, uint32, error) {
	mu.Lock()
	defer mu.Unlock()
	var found []string
	for _, s := range registry {
		if s != nil && s.AppID == in.ID {
			found = append(found, fmt.Sprintf("%s:%d", s.Address, s.InternalPort))
		}
	}
	if found == nil {
		return nil, 0, plugin.Errorf(plugin.NotFound, "no host found for %s", in.ID)
	}
	return found, 1000, nil
}

var version = "0.0.0" // that of plugin.yaml, from the Makefile

func main() {
	plugin.Main(plugin.Plugin{Name: "nameresolution.gostore", Version: version, Types: []plugin.Type{
		{Type: "nameresolution.gostore", New: func() any { return &resolver{} }}}})
}
