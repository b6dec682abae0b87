// Locks in memory: put your server in their place.
package main

import (
	"context"
	"sync"
	"time"

	"microdapr.io/plugin"
)

type held struct {
	owner string
	end   time.Time
}
type locks struct {
	mu   sync.Mutex
	held map[string]held
}

func (l *locks) Init(ctx context.Context, md plugin.Metadata) error { return nil }

func (l *locks) owner(resource string) string {
	if h := l.held[resource]; time.Now().Before(h.end) {
		return h.owner
	}
	return ""
}

func (l *locks) TryLock(ctx context.Context, resource, owner string, expirySeconds int32) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owner(resource) != "" {
		return false, nil
	}
	l.held[resource] = held{owner, time.Now().Add(time.Duration(expirySeconds) * time.Second)}
	return true, nil
}

func (l *locks) Unlock(ctx context.Context, resource, owner string) (plugin.Unlocked, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch l.owner(resource) {
	case "":
		return plugin.LockMissing, nil
	case owner:
		delete(l.held, resource)
		return plugin.LockReleased, nil
	}
	return plugin.LockOfOthers, nil
}

var version = "0.0.0" // that of plugin.yaml, from the Makefile

func main() {
	plugin.Main(plugin.Plugin{Name: "lock.gostore", Version: version, Types: []plugin.Type{
		{Type: "lock.gostore", New: func() any { return &locks{held: map[string]held{}} }}}})
}
