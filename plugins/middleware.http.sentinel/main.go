// middleware.http.sentinel: flow control by Alibaba's Sentinel. Each method and path is a resource of its rules.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	sentinel "github.com/alibaba/sentinel-golang/api"
	"github.com/alibaba/sentinel-golang/core/base"
	"github.com/alibaba/sentinel-golang/core/config"
	"github.com/alibaba/sentinel-golang/ext/datasource"
	"microdapr.io/plugin"
)

type filter struct{}

// rules by the metadata field that holds them, a JSON array each.
var rules = []struct {
	field   string
	handler func() datasource.PropertyHandler
	note    string // why such rules do nothing here
}{
	{"flowRules", func() datasource.PropertyHandler {
		return datasource.NewFlowRulesHandler(datasource.FlowRuleJsonArrayParser)
	}, ""},
	{"isolationRules", func() datasource.PropertyHandler {
		return datasource.NewIsolationRulesHandler(datasource.IsolationRuleJsonArrayParser)
	}, ""},
	{"circuitBreakerRules", func() datasource.PropertyHandler {
		return datasource.NewCircuitBreakerRulesHandler(datasource.CircuitBreakerRuleJsonArrayParser)
	}, ""},
	{"hotSpotParamRules", func() datasource.PropertyHandler {
		return datasource.NewHotSpotParamRulesHandler(datasource.HotSpotParamRuleJsonArrayParser)
	}, "they count values of call parameters, and an HTTP request has none that Sentinel knows"},
	{"systemRules", func() datasource.PropertyHandler {
		return datasource.NewSystemRulesHandler(datasource.SystemRuleJsonArrayParser)
	}, ""},
}

func (f *filter) Init(ctx context.Context, md plugin.Metadata) error {
	c := config.NewDefaultConfig()
	c.Sentinel.Log.Logger = logger{}
	if name := md.String("appName"); name != "" {
		c.Sentinel.App.Name = name
	}
	if dir := md.String("logDir"); dir != "" {
		c.Sentinel.Log.Dir = dir
	} else {
		c.Sentinel.Log.Metric.FlushIntervalSec = 0 // no folder, no files
	}
	if err := sentinel.InitWithConfig(c); err != nil {
		return plugin.Errorf(plugin.Internal, "error to init sentinel: %v", err)
	}
	for _, r := range rules {
		text := md.String(r.field)
		if text == "" {
			continue
		}
		if err := r.handler().Handle([]byte(text)); err != nil {
			return plugin.Errorf(plugin.InvalidArgument, "metadata property %s: %v", r.field, err)
		}
		if r.note != "" {
			plugin.Log(plugin.LogWarn, "%s have no effect: %s", r.field, r.note)
		}
	}
	return nil
}

func (f *filter) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entry, blocked := sentinel.Entry(r.Method+":"+r.URL.Path, sentinel.WithResourceType(base.ResTypeWeb), sentinel.WithTrafficType(base.Inbound))
		if blocked != nil {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(http.StatusTooManyRequests)
			io.WriteString(w, http.StatusText(http.StatusTooManyRequests))
			return
		}
		status := plugin.WatchResponse(w)
		defer func() {
			if s := status(); s == 0 || s >= 500 { // for rules that count errors
				sentinel.TraceError(entry, fmt.Errorf("status %d", s))
			}
			entry.Exit()
		}()
		next.ServeHTTP(w, r)
	})
}

// logger takes Sentinel's own log, whose fields are pairs.
type logger struct{}

func pairs(msg string, kv []any) string {
	var b strings.Builder
	b.WriteString(msg)
	for i := 0; i+1 < len(kv); i += 2 {
		fmt.Fprintf(&b, " %v=%v", kv[i], kv[i+1])
	}
	return b.String()
}

func (logger) Debug(msg string, kv ...any) { plugin.Log(plugin.LogDebug, "%s", pairs(msg, kv)) }
func (logger) DebugEnabled() bool          { return false } // of each request
func (logger) Info(msg string, kv ...any)  { plugin.Log(plugin.LogDebug, "%s", pairs(msg, kv)) }
func (logger) InfoEnabled() bool           { return true }
func (logger) Warn(msg string, kv ...any)  { plugin.Log(plugin.LogWarn, "%s", pairs(msg, kv)) }
func (logger) WarnEnabled() bool           { return true }
func (logger) Error(err error, msg string, kv ...any) {
	plugin.Log(plugin.LogError, "%s: %v", pairs(msg, kv), err)
}
func (logger) ErrorEnabled() bool { return true }

func main() {
	plugin.Main(plugin.Plugin{Name: "middleware.http.sentinel", Version: "1.0.0",
		Types: []plugin.Type{{Type: "middleware.http.sentinel", New: func() any { return &filter{} }}}})
}
