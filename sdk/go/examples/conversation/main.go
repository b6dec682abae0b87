// A model that repeats the last words: put yours in its place.
package main

import (
	"context"

	"microdapr.io/plugin"
)

type model struct{}

func (model) Init(ctx context.Context, md plugin.Metadata) error { return nil }

func (model) Converse(ctx context.Context, r *plugin.ConverseRequest) (*plugin.ConverseResponse, error) {
	last := "nothing"
	for _, m := range r.Messages {
		for _, p := range m.Parts {
			if p.Text != "" {
				last = p.Text
			}
		}
	}
	return plugin.Said("You said: " + last), nil
}

var version = "0.0.0" // that of plugin.yaml, from the Makefile

func main() {
	plugin.Main(plugin.Plugin{Name: "conversation.gostore", Version: version, Types: []plugin.Type{
		{Type: "conversation.gostore", New: func() any { return model{} }}}})
}
