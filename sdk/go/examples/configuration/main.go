// A configuration store on a file of lines KEY=VALUE (setting `file`): put yours in its place.
package main

import (
	"context"
	"os"
	"strings"
	"time"

	"microdapr.io/plugin"
)

type store struct{ file string }

func (s *store) Init(ctx context.Context, md plugin.Metadata) error {
	s.file = md.String("file")
	return nil
}

func (s *store) Get(ctx context.Context, keys []string, metadata map[string]string) (map[string]plugin.Entry, error) {
	items := map[string]plugin.Entry{}
	text, _ := os.ReadFile(s.file) // no file, no items
	for _, line := range strings.Split(string(text), "\n") {
		if key, value, ok := strings.Cut(line, "="); ok && (len(keys) == 0 || has(keys, key)) {
			items[key] = plugin.Entry{Value: value}
		}
	}
	return items, nil
}

func has(keys []string, key string) bool {
	for _, k := range keys {
		if k == key {
			return true
		}
	}
	return false
}

func (s *store) Subscribe(ctx context.Context, keys []string, metadata map[string]string, changed func(map[string]plugin.Entry) error) error {
	before, _ := s.Get(ctx, keys, metadata)
	err := changed(nil) // the watch stands
	for err == nil && ctx.Err() == nil {
		time.Sleep(100 * time.Millisecond)
		now, _ := s.Get(ctx, keys, metadata)
		different := map[string]plugin.Entry{}
		for k, e := range now {
			if before[k].Value != e.Value {
				different[k] = e
			}
		}
		for k := range before {
			if _, there := now[k]; !there {
				different[k] = plugin.Entry{}
			}
		}
		if len(different) > 0 {
			err = changed(different)
		}
		before = now
	}
	return err
}

var version = "0.0.0" // that of plugin.yaml, from the Makefile

func main() {
	plugin.Main(plugin.Plugin{Name: "configuration.gostore", Version: version, Types: []plugin.Type{
		{Type: "configuration.gostore", New: func() any { return &store{} }}}})
}
