// echo.proto's service on grpc-go, and a caller of it that names the app by client interceptors.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"invokeapp/echo"
)

const limit = 4 << 20 // what gRPC libraries and the sidecar take for one message

type echoServer struct {
	echo.UnimplementedEchoServer
	givenUp atomic.Int64
}

func (s *echoServer) Say(ctx context.Context, in *echo.Text) (*echo.Text, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	back := func(prefix string) metadata.MD {
		return metadata.MD{prefix: md.Get("x-in"), prefix + "-bin": md.Get("x-in-bin")}
	}
	if err := errors.Join(grpc.SetHeader(ctx, back("x-head")), grpc.SetTrailer(ctx, back("x-tail"))); err != nil {
		return nil, err
	}
	out := &echo.Text{Text: in.Text, Data: in.Data, N: in.N}
	if end, ok := ctx.Deadline(); ok {
		out.LeftMs = time.Until(end).Milliseconds()
	}
	return out, nil
}

func (s *echoServer) Count(in *echo.Text, out grpc.ServerStreamingServer[echo.Text]) error {
	for i := range in.N {
		if err := out.Send(&echo.Text{N: i}); err != nil {
			return err
		}
	}
	return nil
}

func (s *echoServer) Gather(in grpc.ClientStreamingServer[echo.Text, echo.Text]) error {
	var n, size int64
	for {
		r, err := in.Recv()
		if err == io.EOF {
			return in.SendAndClose(&echo.Text{N: n, Text: strconv.FormatInt(size, 10)})
		}
		if err != nil {
			return err
		}
		n, size = n+1, size+int64(len(r.Data))
	}
}

func (s *echoServer) Chat(io_ grpc.BidiStreamingServer[echo.Text, echo.Text]) error {
	for {
		r, err := io_.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := io_.Send(r); err != nil {
			return err
		}
	}
}

func (s *echoServer) Refuse(in *echo.Text, out grpc.ServerStreamingServer[echo.Text]) error {
	if err := s.Count(in, out); err != nil {
		return err
	}
	st, err := status.New(codes.FailedPrecondition, "not today, 今日は休み").WithDetails(
		&errdetails.ErrorInfo{Reason: "CLOSED", Domain: "polyglot", Metadata: map[string]string{"till": "montag"}},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "text", Description: "zu früh"}}})
	if err != nil {
		return err
	}
	return st.Err()
}

func (s *echoServer) Hang(_ *echo.Text, out grpc.ServerStreamingServer[echo.Text]) error {
	if err := out.Send(&echo.Text{}); err != nil {
		return err
	}
	<-out.Context().Done()
	s.givenUp.Add(1)
	return out.Context().Err()
}

func (s *echoServer) GivenUp(context.Context, *echo.Text) (*echo.Text, error) {
	return &echo.Text{N: s.givenUp.Load()}, nil
}

// ---- the caller ----

func toApp(app string) []grpc.DialOption {
	with := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "dapr-app-id", app)
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker,
			opts ...grpc.CallOption) error {
			return call(with(ctx), method, req, reply, cc, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer,
			opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(with(ctx), desc, cc, method, opts...)
		})}
}

func expect(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

func metadataBothWays(ctx context.Context, c echo.EchoClient) error {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	var head, tail metadata.MD
	out, err := c.Say(metadata.AppendToOutgoingContext(ctx, "x-in", "plain", "x-in-bin", string(all)), &echo.Text{Text: "ü", N: 7},
		grpc.Header(&head), grpc.Trailer(&tail))
	if err != nil {
		return err
	}
	one := func(md metadata.MD, key, want string) error {
		got := md.Get(key)
		return expect(len(got) == 1 && got[0] == want, "%s: %q", key, got)
	}
	return errors.Join(expect(out.Text == "ü" && out.N == 7, "%v", out), one(head, "x-head", "plain"), one(head, "x-head-bin", string(all)),
		one(tail, "x-tail", "plain"), one(tail, "x-tail-bin", string(all)))
}

func streams(ctx context.Context, c echo.EchoClient) error {
	down, err := c.Count(ctx, &echo.Text{N: 1000})
	if err != nil {
		return err
	}
	for i := int64(0); ; i++ {
		t, err := down.Recv()
		if err == io.EOF && i == 1000 {
			break
		}
		if err != nil || t.N != i {
			return fmt.Errorf("answer %d: %v %v", i, t, err)
		}
	}
	up, err := c.Gather(ctx)
	if err != nil {
		return err
	}
	for range 500 {
		if err := up.Send(&echo.Text{Data: make([]byte, 1000)}); err != nil {
			return err
		}
	}
	got, err := up.CloseAndRecv()
	if err != nil || got.N != 500 || got.Text != "500000" {
		return fmt.Errorf("gathered %v: %v", got, err)
	}
	both, err := c.Chat(ctx)
	if err != nil {
		return err
	}
	for i := range int64(50) {
		if err := both.Send(&echo.Text{N: i}); err != nil {
			return err
		}
		if t, err := both.Recv(); err != nil || t.N != i {
			return fmt.Errorf("answer %d: %v %v", i, t, err)
		}
	}
	if err := both.CloseSend(); err != nil {
		return err
	}
	_, err = both.Recv()
	return expect(err == io.EOF, "the end: %v", err)
}

func failures(ctx context.Context, c echo.EchoClient) error {
	for _, n := range []int64{0, 3} {
		s, err := c.Refuse(ctx, &echo.Text{N: n})
		if err != nil {
			return err
		}
		var came int64
		for {
			if _, err = s.Recv(); err != nil {
				break
			}
			came++
		}
		st := status.Convert(err)
		if came != n || st.Code() != codes.FailedPrecondition || st.Message() != "not today, 今日は休み" || len(st.Details()) != 2 {
			return fmt.Errorf("%d answers, then %v with %v", came, err, st.Details())
		}
		info, _ := st.Details()[0].(*errdetails.ErrorInfo)
		bad, _ := st.Details()[1].(*errdetails.BadRequest)
		if info.GetReason() != "CLOSED" || info.GetMetadata()["till"] != "montag" || bad.GetFieldViolations()[0].GetDescription() != "zu früh" {
			return fmt.Errorf("details %v", st.Details())
		}
	}
	return nil
}

func deadlines(ctx context.Context, c echo.EchoClient) error {
	before, err := c.GivenUp(ctx, &echo.Text{})
	if err != nil {
		return err
	}
	in20, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	said, err := c.Say(in20, &echo.Text{})
	if err != nil || said.LeftMs <= 0 || said.LeftMs > 20000 {
		return fmt.Errorf("deadline: %v %v", said, err)
	}
	if said, err = c.Say(context.WithoutCancel(ctx), &echo.Text{}); err != nil || said.LeftMs != 0 {
		return fmt.Errorf("no deadline: %v %v", said, err)
	}
	want := before.N
	for _, limit := range []time.Duration{time.Second, 0} {
		want++
		if err := giveUp(context.WithoutCancel(ctx), c, limit, want); err != nil {
			return fmt.Errorf("limit %v: %w", limit, err)
		}
	}
	return nil
}

// Ends a call of Hang by a deadline, or by cancellation (limit 0), and waits until the service counts want of them.
func giveUp(ctx context.Context, c echo.EchoClient, limit time.Duration, want int64) error {
	hold, cancel := context.WithCancel(ctx)
	code := codes.Canceled
	if limit > 0 {
		hold, cancel = context.WithTimeout(ctx, limit)
		code = codes.DeadlineExceeded
	}
	defer cancel()
	s, err := c.Hang(hold, &echo.Text{})
	if err != nil {
		return err
	}
	if _, err := s.Recv(); err != nil {
		return err
	}
	if limit == 0 {
		cancel()
	}
	if _, err := s.Recv(); status.Code(err) != code {
		return fmt.Errorf("it ended with %v", err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		now, err := c.GivenUp(ctx, &echo.Text{})
		if err != nil || now.N >= want {
			return err
		}
		if time.Now().After(end) {
			return errors.New("the service did not hear of the end")
		}
	}
}

func sizes(ctx context.Context, c echo.EchoClient) error {
	for _, size := range []int{0, 1, 65535, limit - 32} {
		data := make([]byte, size)
		out, err := c.Say(ctx, &echo.Text{Data: data})
		if err != nil || !bytes.Equal(out.Data, data) {
			return fmt.Errorf("%d bytes: %v", size, err)
		}
	}
	_, err := c.Say(ctx, &echo.Text{Data: make([]byte, limit)})
	return expect(status.Code(err) == codes.ResourceExhausted, "over the limit: %v", err)
}

func callEcho(address, app string) error {
	conn, err := grpc.NewClient(address, toApp(app)...)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	c := echo.NewEchoClient(conn)
	for name, step := range map[string]func(context.Context, echo.EchoClient) error{"metadata": metadataBothWays, "streams": streams,
		"failures": failures, "deadlines": deadlines, "sizes": sizes} {
		if err := step(ctx, c); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
