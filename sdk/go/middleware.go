package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
)

// Middleware is a component of kind middleware: a filter around the API server or around the calls to the app. Wrap is what Go's
// filters are everywhere: it gets what comes next and gives a handler that may change the request, answer itself, or look at the
// response by handing on a ResponseWriter of its own.
//
// Nothing crosses the socket that the handler does not ask for: the request's body only when it reads or replaces Request.Body,
// the response only when it wraps the ResponseWriter. Handlers run until the response has gone, each on its own goroutine. A
// handler that panics ends its request with a 5xx.
type Middleware interface {
	Init(ctx context.Context, metadata Metadata) error
	Wrap(next http.Handler) http.Handler
}

const (
	wantRequestBody  = 1
	wantResponse     = 2
	wantResponseBody = 4
	wantEnd          = 8

	chunkBytes  = 64 << 10 // of what is given back at once
	answerBytes = 3 << 20  // of a filter's own answer
)

type httpHeader struct {
	Name  string `pb:"1"`
	Value []byte `pb:"2"`
}
type httpRequest struct {
	Method        string       `pb:"1"`
	Path          []byte       `pb:"2"`
	Query         []byte       `pb:"3"`
	Authority     []byte       `pb:"4"`
	Scheme        string       `pb:"5"`
	Peer          string       `pb:"6"`
	Version       string       `pb:"7"`
	Headers       []httpHeader `pb:"8"`
	ContentLength int64        `pb:"9"`
	HasBody       bool         `pb:"10"`
}
type httpHeaderEdits struct {
	Remove []string     `pb:"1"`
	Set    []httpHeader `pb:"2"`
	Add    []httpHeader `pb:"3"`
}
type httpRequestEdits struct {
	Method          *string          `pb:"1"`
	Path            []byte           `pb:"2,oneof"`
	Query           []byte           `pb:"3,oneof"`
	Headers         *httpHeaderEdits `pb:"4"`
	ResponseHeaders []httpHeader     `pb:"5"`
}
type httpAnswer struct {
	Status  int32        `pb:"1"`
	Headers []httpHeader `pb:"2"`
	Body    []byte       `pb:"3"`
}
type httpDecision struct {
	Proceed  *httpRequestEdits `pb:"1,oneof"`
	Answer   *httpAnswer       `pb:"2,oneof"`
	NeedBody *empty            `pb:"3,oneof"`
	Wants    uint32            `pb:"4"`
}
type httpChunk struct {
	Data []byte `pb:"1"`
	End  bool   `pb:"2"`
	More bool   `pb:"3"`
}
type httpResponse struct {
	Status        int32        `pb:"1"`
	Headers       []httpHeader `pb:"2"`
	ContentLength int64        `pb:"3"`
	HasBody       bool         `pb:"4"`
}
type httpResponseEdits struct {
	Status  int32            `pb:"1"`
	Headers *httpHeaderEdits `pb:"2"`
}
type httpResponseDecision struct {
	Proceed  *httpResponseEdits `pb:"1,oneof"`
	Answer   *httpAnswer        `pb:"2,oneof"`
	NeedBody *empty             `pb:"3,oneof"`
	Wants    uint32             `pb:"4"`
}
type httpTurn struct {
	Request      *httpRequest  `pb:"1,oneof"`
	RequestBody  *httpChunk    `pb:"2,oneof"`
	Response     *httpResponse `pb:"3,oneof"`
	ResponseBody *httpChunk    `pb:"4,oneof"`
}
type httpTurnAnswer struct {
	Request      *httpDecision         `pb:"1,oneof"`
	RequestBody  *httpChunk            `pb:"2,oneof"`
	Response     *httpResponseDecision `pb:"3,oneof"`
	ResponseBody *httpChunk            `pb:"4,oneof"`
}

func addMiddleware(rt *runtime) {
	const kind = "middleware"
	rt.add("microdapr.plugin.v1.HttpMiddleware", append(rt.common(kind, true),
		Streaming("Exchange", func(ctx context.Context, s *Stream) error {
			i, err := rt.take(ctx, kind)
			if err != nil {
				return err
			}
			defer rt.give(i)
			return serveExchange(ctx, s, i.object.(Middleware))
		})))
}

var errOver = errors.New("the exchange is over")

// exchange is one request. The runtime says something and waits for the one answer to it: turn is what it said last, until it
// is answered. Everything runs on one goroutine: whoever needs more of the runtime answers what is open and waits.
type exchange struct {
	s       *Stream
	turn    *httpTurn
	request *http.Request
	headers http.Header // of the request, as it came
	in      body        // what the runtime gave of the body that the handler reads
	out     []byte      // of the body that goes on, not yet given
	passed  bool        // next was called
	decided bool        // about the request
	w       writer
	err     error // of the stream
}

// body is one body on its way in.
type body struct {
	x       *exchange
	data    []byte
	end     bool
	touched bool
}

// wait gives what the runtime says; nil when it has ended.
func (x *exchange) wait() *httpTurn {
	if x.turn == nil && x.err == nil {
		t := new(httpTurn)
		if x.err = x.s.Recv(t); x.err == nil {
			x.turn = t
		}
	}
	return x.turn
}

func (x *exchange) answer(a *httpTurnAnswer) error {
	x.turn = nil
	if x.err == nil {
		x.err = x.s.Send(a)
	}
	return x.err
}

func serveExchange(ctx context.Context, s *Stream, m Middleware) error {
	x := &exchange{s: s}
	first := x.wait()
	if first == nil || first.Request == nil {
		return Errorf(InvalidArgument, "an exchange begins with its request")
	}
	x.in.x = x
	x.w = writer{x: x, header: http.Header{}}
	r, err := x.read(ctx, first.Request)
	if err != nil {
		return err
	}
	m.Wrap(http.HandlerFunc(x.next)).ServeHTTP(&x.w, r)
	return x.finish()
}

// read makes the handler's request.
func (x *exchange) read(ctx context.Context, in *httpRequest) (*http.Request, error) {
	target := string(in.Path)
	if len(in.Query) > 0 {
		target += "?" + string(in.Query)
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, Errorf(InvalidArgument, "the request's path: %v", err)
	}
	major, minor, _ := http.ParseHTTPVersion(in.Version)
	r := &http.Request{Method: in.Method, URL: u, Proto: in.Version, ProtoMajor: major, ProtoMinor: minor, Header: http.Header{},
		ContentLength: in.ContentLength, Host: string(in.Authority), RemoteAddr: in.Peer, RequestURI: target, Body: http.NoBody}
	for _, h := range in.Headers {
		r.Header.Add(h.Name, string(h.Value))
	}
	if in.HasBody {
		r.Body = &x.in
	} else {
		r.ContentLength = 0
	}
	x.request = r
	x.headers = r.Header.Clone()
	x.in.end = !in.HasBody
	return r.WithContext(ctx), nil
}

// Read gives the handler the body. Before it has decided that costs a question; afterwards what it has given is handed over first.
func (b *body) Read(p []byte) (int, error) {
	b.touched = true
	for len(b.data) == 0 {
		if b.end {
			return 0, io.EOF
		}
		if err := b.more(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	return n, nil
}

func (b *body) more() error {
	x := b.x
	if x.turn != nil { // answered first: by the question for the body, or by what there is of it
		a := &httpTurnAnswer{}
		switch {
		case !x.decided:
			a.Request = &httpDecision{NeedBody: &empty{}}
		case x.turn.RequestBody != nil:
			a.RequestBody = &httpChunk{Data: x.out}
			x.out = nil
		default:
			return errOver // the response is there before the body's end
		}
		if err := x.answer(a); err != nil {
			return err
		}
	}
	t := x.wait()
	if t == nil {
		return io.ErrUnexpectedEOF
	}
	if t.RequestBody == nil {
		return errOver
	}
	b.data, b.end = t.RequestBody.Data, b.end || t.RequestBody.End
	return nil
}

func (b *body) Close() error { return nil }

// ---- the request goes on ----

// next is what the handler calls when the request may go on; it returns when the response has gone.
func (x *exchange) next(w http.ResponseWriter, r *http.Request) {
	if x.passed {
		panic("plugin: the next handler was called twice")
	}
	x.passed = true
	replaced := r.Body != x.request.Body || x.in.touched
	own := w == http.ResponseWriter(&x.w)
	d := &httpDecision{Proceed: x.edits(r), Wants: wantEnd}
	if replaced {
		d.Wants |= wantRequestBody
	}
	if !own {
		d.Wants |= wantResponseBody
	} else if x.w.watched {
		d.Wants |= wantResponse
	}
	x.decided = true
	if x.answer(&httpTurnAnswer{Request: d}) != nil {
		return
	}
	for {
		t := x.wait()
		switch {
		case t == nil:
			return
		case t.RequestBody != nil:
			x.give(r.Body, t.RequestBody)
		case t.Response != nil && own:
			x.w.look(t.Response)
		case t.Response != nil:
			x.respond(w)
			return
		default:
			panic(fmt.Sprintf("plugin: an unexpected turn: %+v", t))
		}
	}
}

// give answers turns of the request's body until all of it has gone on, or something else comes.
func (x *exchange) give(from io.Reader, first *httpChunk) {
	x.in.data, x.in.end = append(x.in.data, first.Data...), x.in.end || first.End
	buf := make([]byte, chunkBytes)
	for {
		n, err := from.Read(buf)
		x.out = append(x.out, buf[:n]...)
		if err == nil && len(x.out) < chunkBytes {
			continue
		}
		if err == nil {
			err = x.answer(&httpTurnAnswer{RequestBody: &httpChunk{Data: x.out, More: true}})
			x.out = nil
			t := x.wait()
			if err == nil && t != nil && t.RequestBody != nil {
				x.in.data, x.in.end = append(x.in.data, t.RequestBody.Data...), x.in.end || t.RequestBody.End
				continue
			}
			return
		}
		if errors.Is(err, errOver) || x.turn == nil || x.turn.RequestBody == nil {
			return
		}
		if err != io.EOF {
			panic(err)
		}
		x.answer(&httpTurnAnswer{RequestBody: &httpChunk{Data: x.out, End: true}})
		x.out = nil
		return
	}
}

func (x *exchange) edits(r *http.Request) *httpRequestEdits {
	e := &httpRequestEdits{Headers: diff(x.headers, r.Header), ResponseHeaders: list(x.w.header)}
	if r.Method != x.request.Method {
		e.Method = &r.Method
	}
	was, err := url.ParseRequestURI(x.request.RequestURI)
	if p := r.URL.EscapedPath(); err == nil && p != was.EscapedPath() {
		e.Path = []byte(p)
	}
	if err == nil && r.URL.RawQuery != was.RawQuery {
		e.Query = []byte(r.URL.RawQuery)
	}
	return e
}

func list(h http.Header) []httpHeader {
	var out []httpHeader
	for name, values := range h {
		for _, v := range values {
			out = append(out, httpHeader{name, []byte(v)})
		}
	}
	return out
}

func diff(was, is http.Header) *httpHeaderEdits {
	e := &httpHeaderEdits{}
	for name := range was {
		if len(is[name]) == 0 {
			e.Remove = append(e.Remove, name)
		}
	}
	for name, values := range is {
		if !slices.Equal(values, was[name]) {
			for _, v := range values {
				e.Set = append(e.Set, httpHeader{name, []byte(v)})
			}
		}
	}
	if len(e.Remove)+len(e.Set) == 0 {
		return nil
	}
	return e
}

// ---- the response ----

// writer is what the handler writes to: its own answer before the request went on, the response afterwards.
type writer struct {
	x       *exchange
	header  http.Header
	was     http.Header // of the response as it came
	status  int
	seen    int // of the response
	wrote   bool
	watched bool   // WatchResponse was called
	open    bool   // the runtime waits for the decision about the response
	back    bool   // the response is here
	out     []byte // not yet given
}

func (w *writer) Header() http.Header { return w.header }

func (w *writer) WriteHeader(status int) {
	if w.wrote || (status >= 100 && status < 200) {
		return
	}
	w.wrote = true
	w.status = status
	w.decide()
}

// decide lets the head of the response go on.
func (w *writer) decide() {
	if !w.open || w.x.turn == nil {
		return
	}
	w.open = false
	edits := &httpResponseEdits{Status: int32(w.status), Headers: diff(w.was, w.header)}
	w.x.answer(&httpTurnAnswer{Response: &httpResponseDecision{Proceed: edits, Wants: wantResponseBody | wantEnd}})
}

func (w *writer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if !w.x.passed && len(w.out)+len(p) > answerBytes {
		return 0, fmt.Errorf("a filter's own answer may have %d bytes", answerBytes)
	}
	w.out = append(w.out, p...)
	return len(p), nil
}

// WatchResponse makes the response's status and headers known to a handler that does not wrap its ResponseWriter: when next has returned,
// w.Header() are the response's, and the function that is given back tells its status (0 when there was none).
func WatchResponse(w http.ResponseWriter) func() int {
	own, ok := w.(*writer)
	if !ok {
		return func() int { return 0 }
	}
	own.watched = true
	return func() int { return own.seen }
}

func (w *writer) look(in *httpResponse) {
	w.header = http.Header{}
	for _, h := range in.Headers {
		w.header.Add(h.Name, string(h.Value))
	}
	w.seen = int(in.Status)
	w.x.answer(&httpTurnAnswer{Response: &httpResponseDecision{Proceed: &httpResponseEdits{}, Wants: wantEnd}})
}

// Flush is there for handlers that ask for it; what is written goes with the next turn.
func (w *writer) Flush() {}

// respond hands the response to the handler's writer, and what comes out of it to the runtime.
func (x *exchange) respond(to http.ResponseWriter) {
	in := x.turn.Response
	w := &x.w
	w.header = http.Header{}
	for _, h := range in.Headers {
		w.header.Add(h.Name, string(h.Value))
	}
	w.was, w.open, w.back = w.header.Clone(), true, true
	for name, values := range w.header { // a wrapper may keep headers of its own
		to.Header()[name] = values
	}
	to.WriteHeader(int(in.Status))
	for end := !in.HasBody; !end; {
		if w.open {
			x.answer(&httpTurnAnswer{Response: &httpResponseDecision{NeedBody: &empty{}}})
		} else {
			x.flush(false)
		}
		t := x.wait()
		if t == nil || t.ResponseBody == nil {
			return
		}
		end = t.ResponseBody.End
		if len(t.ResponseBody.Data) > 0 {
			if _, err := to.Write(t.ResponseBody.Data); err != nil {
				panic(err)
			}
		}
	}
}

// flush answers the open turn of the response's body with what was written, in pieces; the last one ends the body when end is set.
func (x *exchange) flush(end bool) {
	for x.turn != nil && x.turn.ResponseBody != nil {
		n := min(len(x.w.out), chunkBytes)
		more := n < len(x.w.out)
		x.answer(&httpTurnAnswer{ResponseBody: &httpChunk{Data: x.w.out[:n], More: more, End: end && !more}})
		x.w.out = x.w.out[n:]
		if !more || x.wait() == nil {
			return
		}
	}
}

// finish says what is left to say when the handler has returned.
func (x *exchange) finish() error {
	w := &x.w
	if !w.wrote {
		w.status = http.StatusOK
	}
	switch {
	case !x.passed:
		answer := &httpAnswer{Status: int32(w.status), Headers: list(w.header), Body: w.out}
		x.answer(&httpTurnAnswer{Request: &httpDecision{Answer: answer}})
	case w.back:
		w.decide()
		if x.wait() != nil {
			x.flush(true)
		}
	}
	return nil
}
