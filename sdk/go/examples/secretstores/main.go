// A secret store with one fixed secret: put your backend in its place.
package main

import (
	"context"

	"microdapr.io/plugin"
)

type store struct{}

var hello = map[string]string{"hello": "world"}

func (store) Init(ctx context.Context, md plugin.Metadata) error {
	return nil // read settings: md.String("url")
}

func (store) Get(ctx context.Context, name string, metadata map[string]string) (map[string]string, error) {
	if name != "hello" {
		return nil, plugin.Errorf(plugin.NotFound, "there is no secret %s", name)
	}
	return hello, nil
}

func (store) BulkGet(ctx context.Context, metadata map[string]string) (map[string]map[string]string, error) {
	return map[string]map[string]string{"hello": hello}, nil
}

var version = "0.0.0" // that of plugin.yaml, from the Makefile

func main() {
	plugin.Main(plugin.Plugin{Name: "secretstores.gostore", Version: version, Types: []plugin.Type{
		{Type: "secretstores.gostore", New: func() any { return store{} }}}})
}
