package plugin

import (
	"context"
	"io"
	"strconv"
	"sync"
)

// Brokers and input bindings: events go to the runtime on a stream, each waits for its own answer.

// PubSub is a component of kind pubsub.
type PubSub interface {
	Init(ctx context.Context, metadata Metadata) error
	Publish(ctx context.Context, m *PublishRequest) error
	// Subscribe delivers messages of the topic until ctx ends. deliver may be called by many goroutines; it returns when the
	// runtime has answered: nil = processed, else the message must come again. Messages without an answer when ctx ends
	// were not processed.
	Subscribe(ctx context.Context, topic string, metadata map[string]string, deliver func(*Message) error) error
}

// PublishRequest is one message to a topic.
type PublishRequest struct {
	Data        []byte            `pb:"1"`
	PubSubName  string            `pb:"2"`
	Topic       string            `pb:"3"`
	Metadata    map[string]string `pb:"4"`
	ContentType string            `pb:"5"`
}

// Message is one message of a subscription, or one event of a binding.
type Message struct {
	Data        []byte
	Topic       string
	Metadata    map[string]string
	ContentType string
}

// InputBinding brings events from outside to the app.
type InputBinding interface {
	Init(ctx context.Context, metadata Metadata) error
	// Read delivers events until ctx ends; deliver gives the app's answer, or an error when the app failed.
	Read(ctx context.Context, deliver func(*Message) ([]byte, error)) error
}

// OutputBinding calls a system outside.
type OutputBinding interface {
	Init(ctx context.Context, metadata Metadata) error
	Invoke(ctx context.Context, r *InvokeRequest) (*InvokeResponse, error)
	Operations() []string
}

// InvokeRequest is one call of an output binding.
type InvokeRequest struct {
	Data      []byte            `pb:"1"`
	Metadata  map[string]string `pb:"2"`
	Operation string            `pb:"3"`
}

// InvokeResponse is its answer.
type InvokeResponse struct {
	Data        []byte            `pb:"1"`
	Metadata    map[string]string `pb:"2"`
	ContentType string            `pb:"3"`
}

type topicMessage struct {
	Name     string            `pb:"1"`
	Metadata map[string]string `pb:"2"`
}
type ackError struct {
	Message string `pb:"1"`
}
type pullRequest struct {
	Topic *topicMessage `pb:"1"`
	AckID string        `pb:"2"`
	Error *ackError     `pb:"3"`
}
type pullResponse struct {
	Data        []byte            `pb:"1"`
	Topic       string            `pb:"2"`
	Metadata    map[string]string `pb:"3"`
	ContentType string            `pb:"4"`
	ID          string            `pb:"5"`
}
type readRequest struct {
	Data  []byte    `pb:"1"`
	ID    string    `pb:"2"`
	Error *ackError `pb:"3"`
}
type readResponse struct {
	Data        []byte            `pb:"1"`
	Metadata    map[string]string `pb:"2"`
	ContentType string            `pb:"3"`
	ID          string            `pb:"4"`
}
type bulkEntry struct {
	ID          string            `pb:"1"`
	Event       []byte            `pb:"2"`
	ContentType string            `pb:"3"`
	Metadata    map[string]string `pb:"4"`
}
type bulkPublishRequest struct {
	Entries    []bulkEntry       `pb:"1"`
	PubSubName string            `pb:"2"`
	Topic      string            `pb:"3"`
	Metadata   map[string]string `pb:"4"`
}
type failedEntry struct {
	ID    string `pb:"1"`
	Error string `pb:"2"`
}
type bulkPublishResponse struct {
	Failed []failedEntry `pb:"1"`
}
type operations struct {
	Operations []string `pb:"1"`
}

// answer of the runtime to one event.
type answer struct {
	data []byte
	err  error
}

// reader is one stream of events.
type reader struct {
	rt      *runtime
	stream  *Stream
	cancel  context.CancelFunc
	sending sync.Mutex
	mu      sync.Mutex
	waiting map[string]chan answer
	last    uint64
}

var errGone = Errorf(Canceled, "the runtime has ended the subscription")

func (r *reader) deliver(ctx context.Context, m *Message, pack func(*Message, string) any) answer {
	r.mu.Lock()
	r.last++
	id := strconv.FormatUint(r.last, 10)
	c := make(chan answer, 1)
	r.waiting[id] = c
	r.mu.Unlock()
	r.rt.inflight.Add(1)
	defer r.done(id)
	if ctx.Err() != nil {
		return answer{err: errGone}
	}
	r.sending.Lock()
	err := r.stream.Send(pack(m, id))
	r.sending.Unlock()
	if err != nil {
		return answer{err: err}
	}
	select {
	case a := <-c:
		return a
	case <-ctx.Done():
		return answer{err: errGone}
	}
}

func (r *reader) done(id string) {
	r.mu.Lock()
	delete(r.waiting, id)
	r.mu.Unlock()
	if r.rt.inflight.Add(-1) == 0 && r.rt.draining.Load() {
		r.rt.signal()
	}
}

func (r *reader) answered(id string, a answer) {
	r.mu.Lock()
	c := r.waiting[id]
	delete(r.waiting, id)
	r.mu.Unlock()
	if c != nil {
		c <- a
	}
}

// stop hands back what is unanswered.
func (r *reader) stop() int {
	r.mu.Lock()
	n := len(r.waiting)
	r.mu.Unlock()
	r.cancel()
	return n
}

// runReader runs an operation and takes the answers, until either ends.
func (rt *runtime) runReader(ctx context.Context, s *Stream, op func(context.Context, *reader) error, recv func() (string, answer, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &reader{rt: rt, stream: s, cancel: cancel, waiting: map[string]chan answer{}}
	rt.mu.Lock()
	rt.stopping = append(rt.stopping, r.stop)
	rt.mu.Unlock()
	go func() {
		for {
			id, a, err := recv()
			if err != nil {
				cancel()
				return
			}
			r.answered(id, a)
		}
	}()
	err := op(ctx, r)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func errorOf(e *ackError) error {
	if e == nil {
		return nil
	}
	return Errorf(Unknown, "%s", e.Message)
}

func addPubSub(rt *runtime) {
	const kind = "pubsub"
	methods := append(rt.common(kind, true),
		on(rt, kind, "Publish", false, func(ctx context.Context, o PubSub, in *PublishRequest) (*empty, error) {
			return nil, o.Publish(ctx, in)
		}),
		on(rt, kind, "BulkPublish", false, func(ctx context.Context, o PubSub, in *bulkPublishRequest) (*bulkPublishResponse, error) {
			out := &bulkPublishResponse{}
			for _, e := range in.Entries {
				md := map[string]string{}
				for k, v := range in.Metadata {
					md[k] = v
				}
				for k, v := range e.Metadata {
					md[k] = v
				}
				if err := o.Publish(ctx, &PublishRequest{e.Event, in.PubSubName, in.Topic, md, e.ContentType}); err != nil {
					out.Failed = append(out.Failed, failedEntry{e.ID, err.Error()})
				}
			}
			return out, nil
		}),
		Streaming("PullMessages", rt.pull))
	rt.add("dapr.proto.components.v1.PubSub", methods)
}

func (rt *runtime) pull(ctx context.Context, s *Stream) error {
	i, err := rt.take(ctx, "pubsub")
	if err != nil {
		return err
	}
	rt.give(i) // only messages without an answer count as work
	i.running.Add(1)
	defer i.running.Done()
	var first pullRequest
	if err := s.Recv(&first); err != nil || first.Topic == nil {
		return Errorf(InvalidArgument, "the first message of the stream names the topic")
	}
	pack := func(m *Message, id string) any {
		topic := m.Topic
		if topic == "" {
			topic = first.Topic.Name
		}
		return &pullResponse{m.Data, topic, m.Metadata, m.ContentType, id}
	}
	return rt.runReader(ctx, s, func(ctx context.Context, r *reader) error {
		return i.object.(PubSub).Subscribe(ctx, first.Topic.Name, first.Topic.Metadata, func(m *Message) error {
			return r.deliver(ctx, m, pack).err
		})
	}, func() (string, answer, error) {
		var in pullRequest
		err := s.Recv(&in)
		return in.AckID, answer{err: errorOf(in.Error)}, err
	})
}

func addBindings(rt *runtime) {
	const kind = "bindings"
	var in, out bool
	for i := range rt.plugin.Types {
		o := rt.plugin.Types[i].object()
		_, isIn := o.(InputBinding)
		_, isOut := o.(OutputBinding)
		in, out = in || isIn, out || isOut
	}
	if out {
		rt.add("dapr.proto.components.v1.OutputBinding", append(rt.common(kind, false),
			on(rt, kind, "Invoke", false, func(ctx context.Context, o OutputBinding, in *InvokeRequest) (*InvokeResponse, error) {
				for _, name := range o.Operations() {
					if name == in.Operation {
						return o.Invoke(ctx, in)
					}
				}
				return nil, Errorf(InvalidArgument, "the binding has no operation '%s'", in.Operation)
			}),
			on(rt, kind, "ListOperations", true, func(ctx context.Context, o OutputBinding, in *empty) (*operations, error) {
				return &operations{o.Operations()}, nil
			})))
	}
	if in {
		rt.add("dapr.proto.components.v1.InputBinding", append(rt.common(kind, false), Streaming("Read", rt.read)))
	}
}

func (rt *runtime) read(ctx context.Context, s *Stream) error {
	i, err := rt.take(ctx, "bindings")
	if err != nil {
		return err
	}
	rt.give(i)
	i.running.Add(1)
	defer i.running.Done()
	o, ok := i.object.(InputBinding)
	if !ok {
		return Errorf(Unimplemented, "%s reads nothing", i.typ.Type)
	}
	pack := func(m *Message, id string) any { return &readResponse{m.Data, m.Metadata, m.ContentType, id} }
	err = rt.runReader(ctx, s, func(ctx context.Context, r *reader) error {
		return o.Read(ctx, func(m *Message) ([]byte, error) {
			a := r.deliver(ctx, m, pack)
			return a.data, a.err
		})
	}, func() (string, answer, error) {
		var in readRequest
		err := s.Recv(&in)
		return in.ID, answer{in.Data, errorOf(in.Error)}, err
	})
	if err == io.EOF {
		return nil
	}
	return err
}
