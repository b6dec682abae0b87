// An app of the Go SDK, served over HTTP or gRPC (PROTOCOL), with echo.proto's service beside the latter. See test_polyglot.py.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
	grpcd "github.com/dapr/go-sdk/service/grpc"
	httpd "github.com/dapr/go-sdk/service/http"
	"google.golang.org/grpc"

	"invokeapp/echo"
)

var id = os.Getenv("APP_ID")

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func answer(v any) (*common.Content, error) {
	return &common.Content{Data: must(json.Marshal(v)), ContentType: "application/json"}, nil
}

func serve() {
	address := "127.0.0.1:" + os.Getenv("APP_PORT")
	var s common.Service
	if os.Getenv("PROTOCOL") == "grpc" {
		own := grpc.NewServer()
		echo.RegisterEchoServer(own, &echoServer{})
		s = grpcd.NewServiceWithGrpcServer(must(net.Listen("tcp", address)), own)
	} else {
		s = httpd.NewService(address)
	}
	check(s.AddServiceInvocationHandler("greet", func(_ context.Context, in *common.InvocationEvent) (*common.Content, error) {
		if in.Verb != "POST" || !strings.HasPrefix(in.ContentType, "application/json") {
			return nil, fmt.Errorf("verb %q, content type %q", in.Verb, in.ContentType)
		}
		return answer(map[string]any{"app": id, "got": json.RawMessage(in.Data)})
	}))
	check(s.AddServiceInvocationHandler("hello", func(_ context.Context, in *common.InvocationEvent) (*common.Content, error) {
		return answer(map[string]any{"app": id})
	}))
	check(s.AddServiceInvocationHandler("fail", func(context.Context, *common.InvocationEvent) (*common.Content, error) {
		return nil, errors.New("not today")
	}))
	go func() { check(s.Start()) }()
}

func invoke(c client.Client, callee string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, text := range []string{"grüße 世界", strings.Repeat("ü", 500000)} {
		sent := map[string]any{"from": id, "text": text, "n": []any{1.0, 2.5, nil}}
		out, err := c.InvokeMethodWithContent(ctx, callee, "greet", "post",
			&client.DataContent{Data: must(json.Marshal(sent)), ContentType: "application/json"})
		if err != nil {
			return err
		}
		var got map[string]any
		if err := json.Unmarshal(out, &got); err != nil || !reflect.DeepEqual(got, map[string]any{"app": callee, "got": any(sent)}) {
			return fmt.Errorf("got %.300s (%v)", out, err)
		}
	}
	out, err := c.InvokeMethod(ctx, callee, "hello", "get")
	if err != nil {
		return err
	}
	var got map[string]any
	if err := json.Unmarshal(out, &got); err != nil || got["app"] != callee {
		return fmt.Errorf("got %.300s (%v)", out, err)
	}
	if _, err := c.InvokeMethodWithCustomContent(ctx, callee, "fail", "post", "application/json", map[string]int{"a": 1}); err == nil {
		return errors.New("the failure did not come")
	}
	return nil
}

func report(name, callee string, err error) {
	if err != nil {
		fmt.Println("FAIL", name, callee, strings.ReplaceAll(err.Error(), "\n", " "))
	} else {
		fmt.Println("PASS", name, callee)
	}
}

func main() {
	serve()
	in := bufio.NewReader(os.Stdin)
	var todo struct{ Invoke, Echo []string }
	check(json.Unmarshal(must(in.ReadBytes('\n')), &todo))
	port := os.Getenv("DAPR_GRPC_PORT")
	c := must(client.NewClientWithAddress("127.0.0.1:" + port))
	defer c.Close()
	for _, callee := range todo.Invoke {
		report("go/grpc", callee, invoke(c, callee))
	}
	for _, callee := range todo.Echo {
		report("grpc-go", callee, callEcho("127.0.0.1:"+port, callee))
	}
	fmt.Println("CALLED")
	_, _ = io.Copy(io.Discard, in)
}
