// Package plugin turns a Go type into a Dapr component that runs as its own process: fill a Plugin, call Main.
//
//	func main() {
//		plugin.Main(plugin.Plugin{Name: "state.mine", Version: "1.0.0", Types: []plugin.Type{
//			{Type: "state.mine", Features: []string{"ETAG"}, New: func() any { return &store{} }}}})
//	}
//
// What New returns decides the kind: a StateStore, SecretStore, OutputBinding, InputBinding, PubSub, Middleware, Configuration, Lock, Crypto,
// Conversation or NameResolver. Main takes the listening socket from descriptor 3, tells the runtime who it is and how it is, and ends when the runtime does (end of file on
// descriptor 4). Started by hand with --socket PATH it serves there instead, for a debugger or as a pluggable component.
//
// Nothing but Go's standard library is needed.
package plugin

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Type is one component type that the plugin serves.
type Type struct {
	Type     string     // "state.mine", as in a component's spec.type
	Versions []string   // of spec.version; none = v1
	Features []string   // ETAG, TTL, ... What follows from the methods of the instance (TRANSACTIONAL, KEYS_LIKE) is added
	New      func() any // an instance, before its Init
}

// Service is a gRPC service of your own, for contracts that this package has no interface for.
type Service struct {
	Name    string // "microdapr.plugin.v1.Lock"
	Methods []Method
}

// Plugin is what Main serves.
type Plugin struct {
	Name, Version string
	Types         []Type
	Services      []Service
	Stop          func() // before the process ends; may be nil
}

const (
	contractVersion = 1
	fdListen        = 3
	fdControl       = 4
	exitGrace       = 3 * time.Second
	lingerMax       = time.Hour
	maxStreams      = 10000
)

type method struct {
	path       string
	idempotent bool
	unary      bool
	run        handler
}

type runtime struct {
	plugin                  Plugin
	methods                 map[string]*method
	services                []string
	calls, errors, inflight atomic.Int64
	started                 time.Time
	draining, lost          atomic.Bool
	wantedType              atomic.Value

	mu        sync.Mutex
	instances map[string]*instance // kind + "\x00" + name
	changed   chan struct{}        // closed and replaced when health or inflight changes
	lastError string
	stopping  []func() int // subscriptions' hand-back
	stuck     watch
	server    *http.Server
	linger    time.Duration // without a runtime
	token     string
	over      *time.Timer
	ended     chan int
	endOnce   sync.Once
}

type instance struct {
	typ     *Type
	name    string
	object  any
	running sync.WaitGroup
	down    bool
	pinging atomic.Int64 // since when, 0 = no ping runs
}

// Metadata are the settings of a component, checked by the manifest. Names are compared without case.
type Metadata map[string]string

// String is a setting's text; "" when it was not given.
func (m Metadata) String(name string) string {
	for k, v := range m {
		if strings.EqualFold(k, name) {
			return v
		}
	}
	return ""
}

// Bool is true for y yes true t on 1.
func (m Metadata) Bool(name string) bool {
	switch strings.ToLower(m.String(name)) {
	case "y", "yes", "true", "t", "on", "1":
		return true
	}
	return false
}

// Duration reads 1m30s; a bare number means seconds. Zero when it was not given or is none.
func (m Metadata) Duration(name string) time.Duration {
	v := m.String(name)
	d, err := time.ParseDuration(v)
	if err != nil {
		d, _ = time.ParseDuration(v + "s")
	}
	return d
}

// ---- instances ----

func kindOf(o any) string {
	switch o.(type) {
	case StateStore:
		return "state"
	case SecretStore:
		return "secretstores"
	case PubSub:
		return "pubsub"
	case InputBinding, OutputBinding:
		return "bindings"
	case Middleware:
		return "middleware"
	case Configuration:
		return "configuration"
	case Lock:
		return "lock"
	case Crypto:
		return "crypto"
	case Conversation:
		return "conversation"
	case NameResolver:
		return "nameresolution"
	}
	return ""
}

// kind of a type; "" when its calls are served by a Service of the plugin's own.
func (t *Type) kind() string {
	return kindOf(t.object())
}

func (t *Type) object() any {
	if t.New == nil {
		return nil
	}
	return t.New()
}

func (rt *runtime) signal() {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	rt.signalLocked()
}

func (rt *runtime) signalLocked() {
	close(rt.changed)
	rt.changed = make(chan struct{})
}

func (rt *runtime) change() <-chan struct{} {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	return rt.changed
}

// typeFor finds the type that an Init is for: by the call's metadata, by Hello, or the only one of its kind.
func (rt *runtime) typeFor(ctx context.Context, kind string) *Type {
	wanted, _ := rt.wantedType.Load().(string)
	for _, name := range []string{Header(ctx, "x-component-type"), wanted} {
		for i := range rt.plugin.Types {
			if t := &rt.plugin.Types[i]; name != "" && strings.EqualFold(t.Type, name) && t.kind() == kind {
				return t
			}
		}
	}
	for i := range rt.plugin.Types {
		if rt.plugin.Types[i].kind() == kind {
			return &rt.plugin.Types[i]
		}
	}
	return nil
}

type initer interface {
	Init(ctx context.Context, metadata Metadata) error
}

// Closer is implemented by instances that hold something. A newer process may serve already: release, write nothing back.
type Closer interface{ Close() error }

// Pinger is implemented by instances that can ask their backend whether it is there.
type Pinger interface {
	Ping(ctx context.Context) error
}

func (rt *runtime) initInstance(ctx context.Context, kind string, md map[string]string) error {
	t := rt.typeFor(ctx, kind)
	if t == nil {
		return Errorf(Unimplemented, "%s serves no component of this kind", rt.plugin.Name)
	}
	i := &instance{typ: t, name: Instance(ctx), object: t.New()}
	if o, ok := i.object.(initer); ok {
		if err := o.Init(ctx, md); err != nil {
			return err
		}
	}
	key := kind + "\x00" + i.name
	rt.mu.Lock()
	old := rt.instances[key]
	rt.instances[key] = i
	rt.signalLocked()
	rt.mu.Unlock()
	if old != nil {
		go old.close()
	}
	return nil
}

// close waits for the instance's calls.
func (i *instance) close() {
	i.running.Wait()
	if c, ok := i.object.(Closer); ok {
		c.Close()
	}
}

// take finds the instance of a call and holds it; the caller calls give.
func (rt *runtime) take(ctx context.Context, kind string) (*instance, error) {
	name := Instance(ctx)
	if rt.draining.Load() {
		return nil, Errorf(Unavailable, "the plugin is being stopped")
	}
	if rt.lost.Load() {
		return nil, Errorf(Unavailable, "the plugin has no runtime: attach first")
	}
	rt.mu.Lock()
	defer rt.mu.Unlock()
	i := rt.instances[kind+"\x00"+name]
	if i == nil && name == "" { // a caller by hand, without the metadata
		for key, one := range rt.instances {
			if strings.HasPrefix(key, kind+"\x00") {
				if i != nil {
					i = nil
					break
				}
				i = one
			}
		}
	}
	if i == nil {
		return nil, Errorf(FailedPrecondition, "component '%s' was not initialised in this process", name)
	}
	i.running.Add(1)
	rt.inflight.Add(1)
	return i, nil
}

func (rt *runtime) give(i *instance) {
	i.running.Done()
	if rt.inflight.Add(-1) == 0 && rt.draining.Load() {
		rt.signal()
	}
}

// on makes a method that runs on an instance of T.
func on[T, In, Out any](rt *runtime, kind, name string, idempotent bool, fn func(ctx context.Context, o T, in *In) (*Out, error)) Method {
	return Unary(name, idempotent, func(ctx context.Context, in *In) (*Out, error) {
		i, err := rt.take(ctx, kind)
		if err != nil {
			return nil, err
		}
		defer rt.give(i)
		defer rt.runs(ctx, name)()
		o, ok := i.object.(T)
		if !ok {
			return nil, Errorf(Unimplemented, "%s does not support this operation", i.typ.Type)
		}
		return fn(ctx, o, in)
	})
}

type initRequest struct {
	Metadata struct {
		Properties map[string]string `pb:"1"`
	} `pb:"1"`
	Sidecar *Sidecar `pb:"3"` // of name resolvers
}
type empty struct{}
type featuresResponse struct {
	Features []string `pb:"1"`
}

// common are the methods that every kind's service begins with.
func (rt *runtime) common(kind string, withFeatures bool) []Method {
	m := []Method{
		Unary("Init", false, func(ctx context.Context, in *initRequest) (*empty, error) {
			return nil, rt.initInstance(context.WithValue(ctx, sidecarKey{}, in.Sidecar), kind, in.Metadata.Properties)
		}),
		Unary("Ping", true, func(ctx context.Context, in *empty) (*empty, error) {
			if i, err := rt.take(ctx, kind); err == nil {
				defer rt.give(i)
				if p, ok := i.object.(Pinger); ok {
					return nil, p.Ping(ctx)
				}
			}
			return nil, nil
		}),
	}
	if withFeatures {
		m = append(m, Unary("Features", true, func(ctx context.Context, in *empty) (*featuresResponse, error) {
			if t := rt.typeFor(ctx, kind); t != nil {
				return &featuresResponse{features(t)}, nil
			}
			return nil, nil
		}))
	}
	return m
}

func (rt *runtime) add(service string, methods []Method) {
	rt.services = append(rt.services, service)
	for _, m := range methods {
		path := "/" + service + "/" + m.Name
		rt.methods[path] = &method{path, m.Idempotent, m.unary, m.run}
	}
}

func features(t *Type) []string {
	have := append([]string{}, t.Features...)
	if t.New == nil {
		return have
	}
	o := t.New()
	more := func(name string, is bool) {
		for _, f := range have {
			if f == name {
				return
			}
		}
		if is {
			have = append(have, name)
		}
	}
	_, tx := o.(Transactor)
	_, keys := o.(KeysLiker)
	_, prefix := o.(PrefixDeleter)
	_, in := o.(InputBinding)
	_, out := o.(OutputBinding)
	more("TRANSACTIONAL", tx)
	more("KEYS_LIKE", keys)
	more("DELETE_WITH_PREFIX", prefix)
	more("INPUT_BINDING", in)
	more("OUTPUT_BINDING", out)
	_, filter := o.(Middleware)
	more("HTTP_EXCHANGE", filter)
	return have
}

// BackendUp and BackendDown tell the runtime whether what stands behind the instance can be reached. For changes, not for each
// call; an instance with Ping is asked every 10 s besides.
func BackendUp(ctx context.Context) { current.backend(Instance(ctx), "") }

// BackendDown: see BackendUp.
func BackendDown(ctx context.Context, reason string) { current.backend(Instance(ctx), reason) }

var current *runtime

func (rt *runtime) backend(name, reason string) {
	if rt == nil {
		return
	}
	rt.mu.Lock()
	defer rt.mu.Unlock()
	for _, i := range rt.instances {
		if i.name == name && i.down != (reason != "") {
			i.down = reason != ""
			if i.down {
				rt.lastError = reason
			}
			rt.signalLocked()
		}
	}
}

// ---- the process ----

// Main serves until the runtime ends, and exits: 0 done, 1 could not start, 2 wrong use.
func Main(p Plugin) {
	socket := ""
	args := os.Args[1:]
	switch {
	case len(args) == 1 && args[0] == "--manifest":
		printManifest(p)
		os.Exit(0)
	case len(args) == 2 && args[0] == "--socket":
		socket = args[1]
	case len(args) > 0 || !isSocket(fdListen):
		fmt.Fprintf(os.Stderr, "%s %s is a plugin: daprd starts it when a component of its type is loaded.\n"+
			"By hand:  --socket PATH   serve on a Unix socket (a debugger, or a pluggable component of another runtime)\n"+
			"          --manifest      print what it serves\n", p.Name, p.Version)
		if len(args) == 1 && args[0] == "--help" {
			os.Exit(0)
		}
		os.Exit(2)
	}
	os.Exit(serve(p, socket))
}

func isSocket(fd int) bool {
	var st syscall.Stat_t
	return syscall.Fstat(fd, &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFSOCK
}

func printManifest(p Plugin) {
	fmt.Printf("name: %s\nversion: %s\ncontractVersions: [%d]\ntypes:\n", p.Name, p.Version, contractVersion)
	for i := range p.Types {
		t := &p.Types[i]
		fmt.Printf("  - type: %s\n    versions: [%s]\n    features: [%s]\n", t.Type, strings.Join(versions(t), ", "), strings.Join(features(t), ", "))
	}
}

func versions(t *Type) []string {
	if len(t.Versions) == 0 {
		return []string{"v1"}
	}
	return t.Versions
}

func listen(socket string) (net.Listener, error) {
	if socket == "" {
		syscall.CloseOnExec(fdListen) // children of the plugin must not hold them
		syscall.CloseOnExec(fdControl)
		return net.FileListener(os.NewFile(fdListen, "listen"))
	}
	os.Remove(socket)
	return net.Listen("unix", socket)
}

func newRuntime(p Plugin) *runtime {
	rt := &runtime{plugin: p, methods: map[string]*method{}, instances: map[string]*instance{}, started: time.Now(),
		changed: make(chan struct{}), stuck: newWatch(), ended: make(chan int, 1)}
	addLifecycle(rt)
	add := map[string]func(*runtime){"state": addState, "secretstores": addSecrets, "pubsub": addPubSub, "bindings": addBindings, "middleware": addMiddleware,
		"configuration": addConfiguration, "lock": addLock, "crypto": addCrypto, "conversation": addConversation, "nameresolution": addNames}
	for i := range p.Types {
		if kind := p.Types[i].kind(); add[kind] != nil {
			add[kind](rt)
			delete(add, kind)
		}
	}
	for _, s := range p.Services {
		rt.add(s.Name, s.Methods)
	}
	addReflection(rt)
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	rt.server = &http.Server{Handler: rt, Protocols: &protocols, MaxHeaderBytes: 1 << 20,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: 4 << 20, MaxReceiveBufferPerStream: 1 << 20}}
	return rt
}

func serve(p Plugin, socket string) int {
	l, err := listen(socket)
	if err != nil {
		Log(LogError, "cannot listen: %v", err)
		return 1
	}
	rt := newRuntime(p)
	current = rt
	if socket == "" {
		go rt.watchControl()
	} else {
		Log(LogInfo, "%s %s serves on %s", p.Name, p.Version, socket)
	}
	signals := make(chan os.Signal, 2)
	if socket != "" {
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	} else {
		signal.Ignore(syscall.SIGINT) // of a terminal: for the runtime, which ends us
		signal.Notify(signals, syscall.SIGTERM)
		signal.Ignore(syscall.SIGPIPE) // of stderr, while there is no runtime
	}
	go func() {
		<-signals
		rt.end(0)
	}()
	go rt.pingAll()
	go func() {
		if err := rt.server.Serve(l); err != nil && err != http.ErrServerClosed {
			Log(LogError, "cannot serve: %v", err)
			rt.end(1)
		}
	}()
	code := <-rt.ended
	rt.shutdown()
	if socket != "" {
		os.Remove(socket)
	}
	return code
}

// watchControl ends the process when the runtime has gone.
func (rt *runtime) watchControl() {
	control := os.NewFile(fdControl, "control")
	b := make([]byte, 64)
	for {
		if n, err := control.Read(b); n == 0 || err != nil {
			rt.runtimeGone()
			return
		}
	}
}

func (rt *runtime) end(code int) {
	rt.endOnce.Do(func() { rt.ended <- code })
}

// shutdown closes all instances; a stuck one does not keep the process.
func (rt *runtime) shutdown() {
	done := make(chan struct{})
	rt.draining.Store(true)
	go func() {
		defer close(done)
		rt.handBack()
		rt.mu.Lock()
		all := rt.instances
		rt.instances = map[string]*instance{}
		rt.mu.Unlock()
		rt.server.Close()
		for _, i := range all {
			if c, ok := i.object.(Closer); ok {
				c.Close()
			}
		}
		if rt.plugin.Stop != nil {
			rt.plugin.Stop()
		}
	}()
	select {
	case <-done:
	case <-time.After(exitGrace):
	}
}
