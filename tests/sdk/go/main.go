// An app of the Go SDK: its service takes events and bindings over HTTP or gRPC (PROTOCOL), its client does the rest. Prints "OK <step>".
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"time"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
	grpcd "github.com/dapr/go-sdk/service/grpc"
	httpd "github.com/dapr/go-sdk/service/http"
)

var seen = make(chan string, 1000)

func done(step string) { fmt.Println("OK", step) }

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Waits for one text; others may come before.
func expect(want string) {
	var others []string
	for end := time.After(20 * time.Second); ; {
		select {
		case s := <-seen:
			if s == want {
				return
			}
			others = append(others, s)
		case <-end:
			log.Fatalf("%s did not come; came: %v", want, others)
		}
	}
}

func redis(words ...string) {
	check(exec.Command("redis-cli", append([]string{"-p", os.Getenv("REDIS_PORT")}, words...)...).Run())
}

func text(e *common.TopicEvent) string { return fmt.Sprintf("%s %s", e.Topic, must(json.Marshal(e.Data))) }

func take(_ context.Context, e *common.TopicEvent) (bool, error) {
	seen <- text(e)
	return false, nil
}

func serve() {
	var s common.Service
	if os.Getenv("PROTOCOL") == "grpc" {
		s = must(grpcd.NewService("127.0.0.1:" + os.Getenv("APP_PORT")))
	} else {
		s = httpd.NewService("127.0.0.1:" + os.Getenv("APP_PORT"))
	}
	check(s.AddTopicEventHandler(&common.Subscription{PubsubName: "pub", Topic: "programmatic", Route: "/programmatic"}, take))
	check(s.AddTopicEventHandler(&common.Subscription{PubsubName: "pub", Topic: "declared", Route: "/declared"}, take))
	check(s.AddBindingInvocationHandler("tick", func(context.Context, *common.BindingEvent) ([]byte, error) {
		seen <- "tick"
		return nil, nil
	}))
	go func() { check(s.Start()) }()
}

func events(ctx context.Context, c client.Client) {
	check(c.PublishEvent(ctx, "pub", "programmatic", map[string]int{"n": 1}, client.PublishEventWithContentType("application/json")))
	expect(`programmatic {"n":1}`)
	done("publish, programmatic subscription")
	check(c.PublishEvent(ctx, "pub", "declared", "text"))
	expect(`declared "text"`)
	done("declarative subscription")
	r := c.PublishEvents(ctx, "pub", "programmatic", []any{map[string]int{"n": 21}, map[string]int{"n": 21}})
	check(r.Error)
	expect(`programmatic {"n":21}`)
	expect(`programmatic {"n":21}`)
	done("bulk publish")
	s := must(c.Subscribe(ctx, client.SubscriptionOptions{PubsubName: "pub", Topic: "streamed"}))
	check(c.PublishEvent(ctx, "pub", "streamed", "over a stream"))
	m := must(s.Receive())
	if m.Data != "over a stream" {
		log.Fatal(m.Data)
	}
	check(m.Success())
	check(s.Close())
	done("streaming subscription")
}

func bindings(ctx context.Context, c client.Client) {
	expect("tick")
	at := map[string]string{"fileName": "a.txt"}
	must(c.InvokeBinding(ctx, &client.InvokeBindingRequest{Name: "files", Operation: "create", Data: []byte("kept!"), Metadata: at}))
	r := must(c.InvokeBinding(ctx, &client.InvokeBindingRequest{Name: "files", Operation: "get", Metadata: at}))
	if string(r.Data) != "kept!" {
		log.Fatalf("read %q", r.Data)
	}
	done("bindings")
}

func configuration(ctx context.Context, c client.Client) {
	redis("SET", "color", "red||1")
	if v := must(c.GetConfigurationItem(ctx, "cfg", "color")); v == nil || v.Value != "red" {
		log.Fatal(v)
	}
	id := must(c.SubscribeConfigurationItems(ctx, "cfg", []string{"color"}, func(_ string, items map[string]*client.ConfigurationItem) {
		if v := items["color"]; v != nil {
			seen <- "color " + v.Value
		}
	}))
	redis("SET", "color", "blue||2")
	expect("color blue")
	check(c.UnsubscribeConfigurationItems(ctx, "cfg", id))
	done("configuration")
}

func others(ctx context.Context, c client.Client) {
	mine := must(c.TryLockAlpha1(ctx, "locks", &client.LockRequest{ResourceID: "r", LockOwner: "me", ExpiryInSeconds: 30}))
	yours := must(c.TryLockAlpha1(ctx, "locks", &client.LockRequest{ResourceID: "r", LockOwner: "you", ExpiryInSeconds: 30}))
	u := must(c.UnlockAlpha1(ctx, "locks", &client.UnlockRequest{ResourceID: "r", LockOwner: "me"}))
	if !mine.Success || yours.Success || u.StatusCode != 0 {
		log.Fatal(mine, yours, u)
	}
	done("lock")
	data := make([]byte, 300000)
	must(rand.Read(data))
	secret := must(io.ReadAll(must(c.Encrypt(ctx, bytes.NewReader(data),
		client.EncryptOptions{ComponentName: "vault", KeyName: "aes256", KeyWrapAlgorithm: "A256KW"}))))
	plain := must(io.ReadAll(must(c.Decrypt(ctx, bytes.NewReader(secret), client.DecryptOptions{ComponentName: "vault"}))))
	if !bytes.HasPrefix(secret, []byte("dapr.io/enc/v1\n")) || !bytes.Equal(plain, data) {
		log.Fatal("the document is another one")
	}
	done("crypto")
}

func main() {
	serve()
	c := must(client.NewClientWithAddress("127.0.0.1:" + os.Getenv("DAPR_GRPC_PORT")))
	defer c.Close()
	ctx := context.Background()
	check(c.Wait(ctx, 20*time.Second))
	for _, step := range []func(context.Context, client.Client){events, bindings, configuration, others} {
		step(ctx, c)
	}
}
