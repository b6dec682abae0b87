// middleware.http.wasm: a WebAssembly guest of the http-wasm handler ABI handles requests and responses. Wazero runs it; http-wasm's own
// host module speaks the ABI.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/http-wasm/http-wasm-host-go/api"
	"github.com/http-wasm/http-wasm-host-go/handler"
	wasm "github.com/http-wasm/http-wasm-host-go/handler/nethttp"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/sys"
	"microdapr.io/plugin"
)

const (
	guestBytes = 64 << 20
	fetchTime  = 30 * time.Second
)

type filter struct {
	guest wasm.Middleware
}

func (f *filter) Init(ctx context.Context, md plugin.Metadata) error {
	binary, name, err := load(ctx, md.String("url"))
	if err != nil {
		return plugin.Errorf(plugin.InvalidArgument, "wasm: failed to parse metadata: %v", err)
	}
	config := moduleConfig(md.Bool("strictSandbox")).WithName(name).WithStdout(&console{name: "stdout"}).WithStderr(&console{name: "stderr"})
	// the guest outlives the call that made it
	f.guest, err = wasm.NewMiddleware(context.WithoutCancel(ctx), binary, handler.Logger(logger{}), handler.ModuleConfig(config),
		handler.GuestConfig([]byte(md.String("guestConfig"))))
	if err != nil {
		return plugin.Errorf(plugin.InvalidArgument, "wasm: %v", err)
	}
	return nil
}

func (f *filter) Close() error {
	return f.guest.Close(context.Background())
}

func (f *filter) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		plugin.WatchResponse(w) // a guest may read the response's headers
		f.guest.NewHandler(r.Context(), next).ServeHTTP(w, r)
	})
}

// load reads the guest from a file or a web server.
func load(ctx context.Context, where string) (guest []byte, name string, err error) {
	if where == "" {
		return nil, "", fmt.Errorf("missing url")
	}
	scheme, rest, ok := strings.Cut(where, ":")
	if !ok {
		return nil, "", fmt.Errorf("invalid URL: %s", where)
	}
	switch scheme {
	case "file":
		file := strings.TrimPrefix(rest, "//")
		guest, err = os.ReadFile(file)
		return guest, strings.TrimSuffix(path.Base(file), ".wasm"), err
	case "http", "https":
		u, err := url.Parse(where)
		if err != nil {
			return nil, "", err
		}
		guest, err = fetch(ctx, u)
		return guest, strings.TrimSuffix(path.Base(u.Path), ".wasm"), err
	case "oci":
		return nil, "", fmt.Errorf("images (oci:) are not served: use file:// or https://")
	}
	return nil, "", fmt.Errorf("unsupported URL scheme: %s", scheme)
}

func fetch(ctx context.Context, u *url.URL) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("received %v status code from %q", resp.StatusCode, u)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, guestBytes+1))
	if err == nil && len(b) > guestBytes {
		err = fmt.Errorf("the guest has more than %d bytes", guestBytes)
	}
	return b, err
}

// moduleConfig: a strict sandbox has clocks and random numbers that tell nothing.
func moduleConfig(strict bool) wazero.ModuleConfig {
	if !strict {
		return wazero.NewModuleConfig().WithRandSource(rand.Reader).WithSysNanotime().WithSysWalltime().WithSysNanosleep()
	}
	var ms atomic.Int64
	ms.Store(time.Now().Unix() * 1000)
	return wazero.NewModuleConfig().WithWalltime(func() (int64, int32) {
		t := ms.Add(1)
		return t / 1000, int32(t%1000) * 1e6
	}, sys.ClockResolution(time.Millisecond))
}

// console logs what a guest prints.
type console struct{ name string }

func (c *console) Write(p []byte) (int, error) {
	if text := bytes.TrimSpace(p); len(text) > 0 {
		plugin.Log(plugin.LogDebug, "wasm %s: %s", c.name, text)
	}
	return len(p), nil
}

// logger is what guests log to by the ABI.
type logger struct{}

func (logger) IsEnabled(level api.LogLevel) bool { return level != api.LogLevelNone }

func (logger) Log(_ context.Context, level api.LogLevel, message string) {
	switch level {
	case api.LogLevelError:
		plugin.Log(plugin.LogError, "%s", message)
	case api.LogLevelWarn:
		plugin.Log(plugin.LogWarn, "%s", message)
	case api.LogLevelInfo:
		plugin.Log(plugin.LogInfo, "%s", message)
	case api.LogLevelDebug:
		plugin.Log(plugin.LogDebug, "%s", message)
	}
}

func main() {
	plugin.Main(plugin.Plugin{Name: "middleware.http.wasm", Version: "1.0.0",
		Types: []plugin.Type{{Type: "middleware.http.wasm", New: func() any { return &filter{} }}}})
}
