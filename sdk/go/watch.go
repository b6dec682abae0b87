package plugin

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// What does not come back: the reports of health tell for how long a ping has been running, and which calls run although their callers
// have gone. The runtime judges: a ping that does not come back for half of the manifest's hangAfter ends the process as hung. A goroutine that
// waits keeps no other one from running, so calls alone do not.

const (
	pingIntervalMax, pingTimeoutMax   = 10 * time.Second, 5 * time.Second
	pingIntervalPart, pingTimeoutPart = 6, 12 // of hangAfter
)

type runningCall struct {
	ctx              context.Context
	method, instance string
	began            time.Time
}

type watch struct {
	mu        sync.Mutex
	running   map[*runningCall]struct{}
	hangAfter atomic.Int64
	changed   chan struct{}
}

func newWatch() watch {
	return watch{running: map[*runningCall]struct{}{}, changed: make(chan struct{}, 1)}
}

func (w *watch) part(n int64, most time.Duration) time.Duration {
	if d := time.Duration(w.hangAfter.Load() / n); d > 0 && d < most {
		return d
	}
	return most
}

func (rt *runtime) setHangAfter(d time.Duration) {
	if rt.stuck.hangAfter.Swap(int64(d)) == int64(d) {
		return
	}
	select {
	case rt.stuck.changed <- struct{}{}:
	default:
	}
}

// runs notes a call until the function that it returns is called.
func (rt *runtime) runs(ctx context.Context, method string) func() {
	w, c := &rt.stuck, &runningCall{ctx, method, Instance(ctx), time.Now()}
	w.mu.Lock()
	w.running[c] = struct{}{}
	w.mu.Unlock()
	return func() {
		w.mu.Lock()
		delete(w.running, c)
		w.mu.Unlock()
	}
}

func (rt *runtime) lookAtCalls(r *healthReport) {
	w := &rt.stuck
	var oldest *runningCall
	w.mu.Lock()
	for c := range w.running {
		if c.ctx.Err() == nil {
			continue
		}
		r.Abandoned++
		if oldest == nil || c.began.Before(oldest.began) {
			oldest = c
		}
	}
	w.mu.Unlock()
	if oldest != nil {
		age := time.Since(oldest.began)
		r.AbandonedMs = uint64(age.Milliseconds())
		r.say(fmt.Sprintf("%d of the calls that run have no caller any more, the oldest is %s of component %s, for %.0f s", r.Abandoned, oldest.method,
			oldest.instance, age.Seconds()))
	}
}

func (r *healthReport) say(text string) {
	if r.BusyWith != "" {
		text = r.BusyWith + ", " + text
	}
	r.BusyWith = text
}

// lookAtPings is called with rt.mu held.
func (rt *runtime) lookAtPings(r *healthReport) {
	var oldest time.Duration
	for _, i := range rt.instances {
		since := i.pinging.Load()
		if since == 0 {
			continue
		}
		age := time.Since(time.Unix(0, since))
		oldest = max(oldest, age)
		if age >= rt.stuck.part(pingTimeoutPart, pingTimeoutMax) && !i.down {
			i.down = true
			rt.lastError = fmt.Sprintf("its ping has not come back for %.3g s", age.Seconds())
		}
	}
	if oldest > 0 {
		r.PingMs = uint64(oldest.Milliseconds())
		r.say(fmt.Sprintf("a ping has not come back for %.3g s", oldest.Seconds()))
	}
}

func (rt *runtime) pingAll() {
	for {
		select {
		case <-rt.stuck.changed:
			continue
		case <-time.After(rt.stuck.part(pingIntervalPart, pingIntervalMax)):
		}
		rt.mu.Lock()
		for _, i := range rt.instances {
			if p, ok := i.object.(Pinger); ok && i.pinging.CompareAndSwap(0, time.Now().UnixNano()) {
				go rt.pingOne(i, p)
			}
		}
		rt.mu.Unlock()
	}
}

func (rt *runtime) pingOne(i *instance, p Pinger) {
	ctx, cancel := context.WithTimeout(context.Background(), rt.stuck.part(pingTimeoutPart, pingTimeoutMax))
	defer cancel()
	err := p.Ping(ctx)
	i.pinging.Store(0)
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	rt.backend(i.name, reason)
}
