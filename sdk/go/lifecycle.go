package plugin

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// microdapr.plugin.v1.Lifecycle, and as much of gRPC reflection as runtimes ask of a pluggable component.

type helloRequest struct {
	KernelVersion    string   `pb:"1"`
	ContractVersions []uint32 `pb:"2"`
	InstanceName     string   `pb:"3"`
	ComponentType    string   `pb:"4"`
	ComponentVersion string   `pb:"5"`
}
type componentType struct {
	Type     string   `pb:"1"`
	Versions []string `pb:"2"`
	Features []string `pb:"3"`
}
type helloResponse struct {
	PluginName        string          `pb:"1"`
	PluginVersion     string          `pb:"2"`
	ContractVersions  []uint32        `pb:"3"`
	ComponentTypes    []componentType `pb:"4"`
	IdempotentMethods []string        `pb:"5"`
	MaxMessageBytes   uint32          `pb:"6"`
}
type acceptRequest struct {
	Accepted        bool   `pb:"1"`
	ContractVersion uint32 `pb:"2"`
	Refusal         string `pb:"3"`
	Fix             string `pb:"4"`
	LingerMs        uint32 `pb:"5"`
	LingerToken     string `pb:"6"`
}
type attachRequest struct {
	Token         string `pb:"1"`
	KernelVersion string `pb:"2"`
	Pid           uint32 `pb:"3"`
}
type attachResponse struct {
	Instances []string `pb:"1"`
}
type healthRequest struct {
	IntervalMs  uint32 `pb:"1"`
	HangAfterMs uint64 `pb:"2"`
}
type healthReport struct {
	Alive            bool   `pb:"1"`
	BackendReachable bool   `pb:"2"`
	LastError        string `pb:"3"`
	AtUnixMs         uint64 `pb:"4"`
	Calls            uint64 `pb:"5"`
	Inflight         uint64 `pb:"6"`
	PingMs           uint64 `pb:"8"`
	Abandoned        uint32 `pb:"9"`
	BusyWith         string `pb:"10"`
	AbandonedMs      uint64 `pb:"11"`
}
type drainRequest struct {
	TimeoutMs uint32 `pb:"1"`
}
type drainResponse struct {
	HandedBack uint32 `pb:"1"`
}
type statsResponse struct {
	Calls    uint64 `pb:"1"`
	Errors   uint64 `pb:"2"`
	Inflight uint64 `pb:"3"`
	RSS      uint64 `pb:"4"`
	CPUMs    uint64 `pb:"5"`
	UptimeMs uint64 `pb:"6"`
	OpenFDs  uint64 `pb:"7"`
}
type setLogLevelRequest struct {
	Level string `pb:"1"`
}

func addLifecycle(rt *runtime) {
	rt.add("microdapr.plugin.v1.Lifecycle", []Method{
		Unary("Hello", false, rt.hello),
		Unary("Accept", false, func(ctx context.Context, in *acceptRequest) (*empty, error) {
			if !in.Accepted {
				Log(LogError, "refused by the runtime: %s; %s", in.Refusal, in.Fix)
			} else if in.LingerMs > 0 && in.LingerToken != "" {
				rt.lingerTold(in.LingerMs, in.LingerToken)
			}
			return nil, nil
		}),
		Streaming("Health", rt.health),
		Streaming("Attach", rt.attach),
		Unary("Drain", false, rt.drain),
		Unary("Stats", false, rt.stats),
		Unary("SetLogLevel", false, func(ctx context.Context, in *setLogLevelRequest) (*empty, error) {
			return nil, setLogLevel(in.Level)
		}),
	})
}

// ---- without a runtime ----

func (rt *runtime) lingerTold(ms uint32, token string) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	rt.linger, rt.token = min(time.Duration(ms)*time.Millisecond, lingerMax), token
	syscall.Listen(fdListen, 1024) // who connects sees this process behind the socket, not the one that made it
}

// runtimeGone ends the process; or, when the runtime wished so, waits for another one to attach.
func (rt *runtime) runtimeGone() {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.draining.Load() || rt.linger == 0 {
		rt.end(0)
		return
	}
	rt.lost.Store(true)
	rt.over = time.AfterFunc(rt.linger, func() { rt.end(0) })
}

func (rt *runtime) takeOver(token string) ([]string, error) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if !rt.lost.Load() {
		return nil, Errorf(FailedPrecondition, "the process has a runtime")
	}
	if token != rt.token {
		return nil, Errorf(PermissionDenied, "the token is another one")
	}
	rt.lost.Store(false)
	rt.over.Stop()
	var names []string
	for _, i := range rt.instances {
		names = append(names, i.name)
	}
	return names, nil
}

// attach is the stream on which the process hangs from now on.
func (rt *runtime) attach(ctx context.Context, s *Stream) error {
	var in attachRequest
	if err := s.Recv(&in); err != nil {
		return Errorf(InvalidArgument, "not an AttachRequest")
	}
	names, err := rt.takeOver(in.Token)
	if err != nil {
		return err
	}
	defer rt.runtimeGone()
	for err = s.Send(&attachResponse{Instances: names}); err == nil; {
		err = s.Recv(&in)
	}
	return nil
}

func (rt *runtime) hello(ctx context.Context, in *helloRequest) (*helloResponse, error) {
	rt.wantedType.Store(in.ComponentType)
	out := &helloResponse{PluginName: rt.plugin.Name, PluginVersion: rt.plugin.Version, ContractVersions: []uint32{contractVersion}}
	for i := range rt.plugin.Types {
		t := &rt.plugin.Types[i]
		out.ComponentTypes = append(out.ComponentTypes, componentType{t.Type, versions(t), features(t)})
	}
	for path, m := range rt.methods {
		if m.idempotent {
			out.IdempotentMethods = append(out.IdempotentMethods, path)
		}
	}
	return out, nil
}

func (rt *runtime) report() *healthReport {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	r := &healthReport{Alive: true, BackendReachable: true, LastError: rt.lastError, AtUnixMs: uint64(time.Now().UnixMilli()),
		Calls: uint64(rt.calls.Load()), Inflight: uint64(rt.inflight.Load())}
	rt.lookAtPings(r)
	rt.lookAtCalls(r)
	r.LastError = rt.lastError
	for _, i := range rt.instances {
		if i.down {
			r.BackendReachable = false
		}
	}
	return r
}

func (rt *runtime) health(ctx context.Context, s *Stream) error {
	var in healthRequest
	if err := s.Recv(&in); err != nil {
		return Errorf(InvalidArgument, "not a HealthRequest")
	}
	interval := time.Duration(in.IntervalMs) * time.Millisecond
	if interval <= 0 {
		interval = time.Second
	}
	rt.setHangAfter(time.Duration(in.HangAfterMs) * time.Millisecond)
	if interval < 20*time.Millisecond {
		interval = 20 * time.Millisecond
	}
	for {
		changed := rt.change()
		if err := s.Send(rt.report()); err != nil {
			return nil // the runtime has lost interest
		}
		select {
		case <-changed:
		case <-time.After(interval):
		case <-ctx.Done():
			return nil
		}
	}
}

func (rt *runtime) drain(ctx context.Context, in *drainRequest) (*drainResponse, error) {
	rt.draining.Store(true)
	handed := rt.handBack()
	deadline := time.After(time.Duration(in.TimeoutMs) * time.Millisecond)
	for {
		changed := rt.change()
		if rt.inflight.Load() == 0 {
			break
		}
		select {
		case <-changed:
			continue
		case <-deadline:
		case <-ctx.Done():
		}
		break
	}
	return &drainResponse{HandedBack: uint32(handed)}, nil
}

// handBack ends all subscriptions; the number of messages that were not acknowledged.
func (rt *runtime) handBack() int {
	rt.mu.Lock()
	all := rt.stopping
	rt.stopping = nil
	rt.mu.Unlock()
	n := 0
	for _, stop := range all {
		n += stop()
	}
	return n
}

func (rt *runtime) stats(ctx context.Context, in *empty) (*statsResponse, error) {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	var size, resident uint64
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		fmt.Sscan(string(b), &size, &resident)
	}
	fds, _ := os.ReadDir("/proc/self/fd")
	return &statsResponse{Calls: uint64(rt.calls.Load()), Errors: uint64(rt.errors.Load()), Inflight: uint64(rt.inflight.Load()),
		RSS: resident * uint64(os.Getpagesize()), CPUMs: uint64((u.Utime.Nano() + u.Stime.Nano()) / 1e6),
		UptimeMs: uint64(time.Since(rt.started).Milliseconds()), OpenFDs: uint64(len(fds))}, nil
}

// ---- log ----

// LogLevel orders log lines.
type LogLevel int32

const (
	LogError LogLevel = 3
	LogWarn  LogLevel = 4
	LogInfo  LogLevel = 6
	LogDebug LogLevel = 7
)

var maxLevel atomic.Int32

func init() { maxLevel.Store(int32(LogInfo)) }

// Log writes one line that the runtime makes its own log line of, with the scope plugin.NAME.
func Log(level LogLevel, format string, args ...any) {
	if int32(level) > maxLevel.Load() {
		return
	}
	fmt.Fprintf(os.Stderr, "<%d>%s\n", level, strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " "))
}

func setLogLevel(name string) error {
	levels := map[string]LogLevel{"debug": LogDebug, "info": LogInfo, "warn": LogWarn, "warning": LogWarn, "error": LogError, "fatal": LogError}
	level, ok := levels[strings.ToLower(name)]
	if !ok {
		return Errorf(InvalidArgument, "unknown log level '%s': debug, info, warn, error or fatal", name)
	}
	maxLevel.Store(int32(level))
	return nil
}

// ---- reflection: the list of services ----

type reflectionRequest struct {
	Host         string  `pb:"1"`
	ListServices *string `pb:"7"`
}
type reflectionResponse struct {
	Host     string             `pb:"1"`
	Original *reflectionRequest `pb:"2"`
	List     *serviceList       `pb:"6"`
	Error    *reflectionError   `pb:"7"`
}
type serviceList struct {
	Service []serviceName `pb:"1"`
}
type serviceName struct {
	Name string `pb:"1"`
}
type reflectionError struct {
	Code    int32  `pb:"1"`
	Message string `pb:"2"`
}

func addReflection(rt *runtime) {
	names := []string{"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}
	for _, name := range names {
		rt.add(name, []Method{Streaming("ServerReflectionInfo", func(ctx context.Context, s *Stream) error {
			for {
				var in reflectionRequest
				if err := s.Recv(&in); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
				out := reflectionResponse{Host: in.Host, Original: &in}
				if in.ListServices != nil {
					out.List = &serviceList{}
					for _, svc := range rt.services {
						out.List.Service = append(out.List.Service, serviceName{svc})
					}
				} else {
					out.Error = &reflectionError{int32(NotFound), "descriptors are not served: the .proto files are public"}
				}
				if err := s.Send(&out); err != nil {
					return err
				}
			}
		})})
	}
}
