// A broker in memory: put yours in its place.
package main

import (
	"context"
	"sync"

	"microdapr.io/plugin"
)

type broker struct {
	mu     sync.Mutex
	topics map[string]chan *plugin.Message
}

const queued = 10000

func (b *broker) queue(topic string) chan *plugin.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.topics[topic] == nil {
		b.topics[topic] = make(chan *plugin.Message, queued)
	}
	return b.topics[topic]
}

func (b *broker) put(m *plugin.Message) error {
	select {
	case b.queue(m.Topic) <- m:
		return nil
	default:
		return plugin.Errorf(plugin.ResourceExhausted, "the topic %s is full", m.Topic)
	}
}

func (b *broker) Init(ctx context.Context, md plugin.Metadata) error { return nil }

func (b *broker) Publish(ctx context.Context, r *plugin.PublishRequest) error {
	return b.put(&plugin.Message{Data: r.Data, Topic: r.Topic, Metadata: r.Metadata, ContentType: r.ContentType})
}

func (b *broker) Subscribe(ctx context.Context, topic string, metadata map[string]string, deliver func(*plugin.Message) error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-b.queue(topic):
			if err := deliver(m); err != nil { // the app failed: again, to whoever comes
				b.put(m)
			}
		}
	}
}

var version = "0.0.0" // that of plugin.yaml, from the Makefile

func main() {
	plugin.Main(plugin.Plugin{Name: "pubsub.gostore", Version: version, Types: []plugin.Type{
		{Type: "pubsub.gostore", New: func() any { return &broker{topics: map[string]chan *plugin.Message{}} }}}})
}
