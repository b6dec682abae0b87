// A filter: it wants the header x-key where the setting `key` says which, and marks what passes.
package main

import (
	"context"
	"net/http"

	"microdapr.io/plugin"
)

type filter struct{ key string }

func (f *filter) Init(ctx context.Context, md plugin.Metadata) error {
	f.key = md.String("key")
	return nil
}

func (f *filter) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.key != "" && r.Header.Get("x-key") != f.key {
			http.Error(w, "say x-key", http.StatusUnauthorized)
			return
		}
		r.Header.Set("x-seen-by", "filter")
		next.ServeHTTP(w, r)
	})
}

var version = "0.0.0" // that of plugin.yaml, from the Makefile

func main() {
	plugin.Main(plugin.Plugin{Name: "middleware.gostore", Version: version, Types: []plugin.Type{
		{Type: "middleware.gostore", New: func() any { return &filter{} }}}})
}
