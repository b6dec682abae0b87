package plugin

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// gRPC over net/http's HTTP/2: requests by prior knowledge on a Unix socket, length-prefixed messages, status in trailers.

type handler func(ctx context.Context, s *Stream) error

// Stream is one call in progress: a unary call is a stream with one message each way.
type Stream struct {
	body  io.Reader
	w     http.ResponseWriter
	flush func() error
}

// Recv reads the next message into m; io.EOF when the caller has sent its last.
func (s *Stream) Recv(m any) error {
	b, err := s.recvBytes()
	if err != nil {
		return err
	}
	if err = Unmarshal(b, m); err != nil {
		return Errorf(InvalidArgument, "%v", err)
	}
	return nil
}

func (s *Stream) recvBytes() ([]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(s.body, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, err
	}
	if head[0] != 0 {
		return nil, Errorf(Unimplemented, "compressed messages are not taken")
	}
	size := int64(binary.BigEndian.Uint32(head[1:]))
	var b bytes.Buffer // grows with what comes, not with what was announced
	if n, err := io.CopyN(&b, s.body, size); n != size {
		return nil, Errorf(Internal, "the message is cut off: %v", err)
	}
	return b.Bytes(), nil
}

// Send writes one message and flushes it. Calls must not run at the same time.
func (s *Stream) Send(m any) error {
	b, err := Marshal(m)
	if err != nil {
		return err
	}
	return s.sendBytes(b)
}

func (s *Stream) sendBytes(b []byte) error {
	head := make([]byte, 5, 5+len(b))
	binary.BigEndian.PutUint32(head[1:], uint32(len(b)))
	if _, err := s.w.Write(append(head, b...)); err != nil {
		return err
	}
	return s.flush()
}

func timeoutOf(h http.Header) time.Duration {
	v := h.Get("Grpc-Timeout")
	units := map[byte]time.Duration{'n': time.Nanosecond, 'u': time.Microsecond, 'm': time.Millisecond, 'S': time.Second, 'M': time.Minute, 'H': time.Hour}
	if len(v) < 2 || len(v) > 9 {
		return 0
	}
	n, err := strconv.ParseInt(v[:len(v)-1], 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(n) * units[v[len(v)-1]]
}

// percent encodes a status text as gRPC wants it in a header.
func percent(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func writeStatus(w http.ResponseWriter, err error) {
	h := w.Header()
	e := asError(err)
	if e == nil {
		h.Set(http.TrailerPrefix+"Grpc-Status", "0")
		return
	}
	h.Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(int(e.Code)))
	h.Set(http.TrailerPrefix+"Grpc-Message", percent(e.Message))
	if e.details != nil {
		h.Set(http.TrailerPrefix+"Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(e.details))
	}
}

// ServeHTTP finds the method and runs it; a panic is that call's failure, not the process's.
func (rt *runtime) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		http.Error(w, "this is a gRPC service", http.StatusUnsupportedMediaType)
		return
	}
	w.Header().Set("Content-Type", "application/grpc")
	m := rt.methods[r.URL.Path]
	if m == nil {
		writeStatus(w, Errorf(Unimplemented, "unknown method %s", r.URL.Path))
		return
	}
	ctx := r.Context()
	if d := timeoutOf(r.Header); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	ctx = context.WithValue(ctx, callKey{}, callInfo{instance: instanceOf(r.Header), header: r.Header})
	s := &Stream{body: r.Body, w: w, flush: http.NewResponseController(w).Flush}
	if m.unary {
		s.flush = func() error { return nil } // message and status leave together
	}
	rt.calls.Add(1)
	err := rt.guard(ctx, m, s)
	if asError(err) != nil {
		rt.errors.Add(1)
	}
	writeStatus(w, err)
}

func (rt *runtime) guard(ctx context.Context, m *method, s *Stream) (err error) {
	defer func() {
		if p := recover(); p != nil {
			Log(LogError, "panic in %s: %v", m.path, p)
			err = Errorf(Internal, "the plugin failed: %v", p)
		}
	}()
	return m.run(ctx, s)
}

type callKey struct{}
type callInfo struct {
	instance string
	header   http.Header
}

func instanceOf(h http.Header) string {
	if name := h.Get("X-Component-Instance"); name != "" {
		return name
	}
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(h.Get("X-Component-Instance-Bin"), "="))
	if err != nil {
		return ""
	}
	return string(raw)
}

// Instance is the name of the component that the call is for: metadata.name of its YAML.
func Instance(ctx context.Context) string {
	c, _ := ctx.Value(callKey{}).(callInfo)
	return c.instance
}

// Header is a call's metadata by its name; "" when it is not there.
func Header(ctx context.Context, name string) string {
	c, _ := ctx.Value(callKey{}).(callInfo)
	return c.header.Get(name)
}

// Method is one call that a service serves.
type Method struct {
	Name       string
	Idempotent bool // may be sent again after the process died with the call in flight
	unary      bool
	run        handler
}

// Unary makes a method of a function from message to message; both are tagged structs.
func Unary[In, Out any](name string, idempotent bool, fn func(ctx context.Context, in *In) (*Out, error)) Method {
	return Method{Name: name, Idempotent: idempotent, unary: true, run: func(ctx context.Context, s *Stream) error {
		in := new(In)
		if err := s.Recv(in); err != nil {
			if err == io.EOF {
				return Errorf(Internal, "the call has no request message")
			}
			return err
		}
		out, err := fn(ctx, in)
		if err != nil {
			return err
		}
		if out == nil {
			out = new(Out)
		}
		return s.Send(out)
	}}
}

// Streaming makes a method of a function that receives and sends as it likes.
func Streaming(name string, fn func(ctx context.Context, s *Stream) error) Method {
	return Method{Name: name, run: fn}
}
