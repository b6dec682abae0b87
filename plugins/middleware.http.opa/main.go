// middleware.http.opa: asks a policy, written in Rego, whether a request may go on. The policy is evaluated by Open Policy Agent's own
// module; its rule data.http.allow says true or false, or an object with allow, status_code and additional_headers.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/rego"
	"microdapr.io/plugin"
)

const (
	compileTime = time.Minute
	bodyBytes   = 16 << 20 // of a request that the policy may read
	errorHeader = "x-dapr-opa-error"
)

type filter struct {
	query    rego.PreparedEvalQuery
	status   int
	headers  []string // canonical names of those that the policy sees
	readBody bool
}

func (f *filter) Init(ctx context.Context, md plugin.Metadata) error {
	f.status = http.StatusForbidden
	if v := md.String("defaultStatus"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 100 || n > 599 {
			return plugin.Errorf(plugin.InvalidArgument, "metadata property defaultStatus: %q is no status in the range [100-599]", v)
		}
		f.status = n
	}
	for _, name := range strings.Split(md.String("includedHeaders"), ",") {
		if name = strings.ReplaceAll(name, " ", ""); name != "" {
			f.headers = append(f.headers, textproto.CanonicalMIMEHeaderKey(name))
		}
	}
	f.readBody = md.Bool("readBody")
	ctx, cancel := context.WithTimeout(ctx, compileTime)
	defer cancel()
	var err error
	f.query, err = rego.New(rego.Query("result = data.http.allow"), rego.Module("inline.rego", md.String("rego"))).PrepareForEval(ctx)
	if err != nil {
		return plugin.Errorf(plugin.InvalidArgument, "metadata property rego: %v", err)
	}
	return nil
}

func (f *filter) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := f.body(r)
		if errors.Is(err, errTooLong) {
			say(w, http.StatusRequestEntityTooLarge)
			return
		}
		if err != nil {
			f.fail(w, err)
			return
		}
		results, err := f.query.Eval(r.Context(), rego.EvalInput(f.input(r, body)))
		switch {
		case err != nil:
			f.fail(w, err)
		case len(results) == 0:
			f.fail(w, errors.New("received no results back from rego policy. Are you setting data.http.allow?"))
		default:
			f.apply(w, r, next, results[0].Bindings["result"])
		}
	})
}

var errTooLong = fmt.Errorf("the body has more than %d bytes", bodyBytes)

// body reads it for the policy, and puts it back for what comes next.
func (f *filter) body(r *http.Request) (string, error) {
	if !f.readBody {
		return "", nil
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, bodyBytes+1))
	if err != nil {
		return "", err
	}
	if len(b) > bodyBytes {
		return "", errTooLong
	}
	if len(b) > 0 {
		r.Body = io.NopCloser(bytes.NewReader(b))
	}
	return string(b), nil
}

func (f *filter) input(r *http.Request, body string) map[string]any {
	headers := map[string]string{}
	for name, values := range r.Header {
		if slices.Contains(f.headers, name) {
			headers[name] = strings.Join(values, ", ")
		}
	}
	return map[string]any{"request": map[string]any{
		"method":     r.Method,
		"path":       r.URL.Path,
		"path_parts": strings.Split(strings.Trim(r.URL.Path, "/"), "/"),
		"raw_query":  r.URL.RawQuery,
		"query":      map[string][]string(r.URL.Query()),
		"headers":    headers,
		"scheme":     r.URL.Scheme,
		"body":       body,
	}}
}

// apply does what the policy said.
func (f *filter) apply(w http.ResponseWriter, r *http.Request, next http.Handler, said any) {
	status, allow := f.status, false
	headers := map[string]string{}
	switch v := said.(type) {
	case bool:
		allow = v
	case map[string]any:
		var err error
		if allow, err = read(v, &status, headers); err != nil {
			f.fail(w, err)
			return
		}
	default:
		f.fail(w, errors.New("got an invalid type back from rego policy. Only a boolean or map is valid"))
		return
	}
	if !allow {
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		say(w, status)
		return
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	next.ServeHTTP(w, r)
}

// read takes the members of an object that the policy gave.
func read(v map[string]any, status *int, headers map[string]string) (allow bool, err error) {
	if a, given := v["allow"]; given {
		ok := false
		if allow, ok = a.(bool); !ok {
			return false, errors.New("allow is no boolean")
		}
	}
	if s, given := v["status_code"]; given {
		n, err := strconv.Atoi(fmt.Sprint(s))
		if err != nil {
			return false, errors.New("status_code is no number")
		}
		*status = n
	}
	if h, given := v["additional_headers"]; given {
		all, ok := h.(map[string]any)
		if !ok {
			return false, errors.New("additional_headers is no object")
		}
		for name, value := range all {
			text, ok := value.(string)
			if !ok {
				return false, fmt.Errorf("the value of additional header %s is no string", name)
			}
			headers[name] = text
		}
	}
	return allow, nil
}

// fail refuses: a policy that cannot be asked allows nothing.
func (f *filter) fail(w http.ResponseWriter, err error) {
	plugin.Log(plugin.LogWarn, "Error processing rego policy: %v", err)
	w.Header().Set(errorHeader, "true")
	say(w, f.status)
}

// say answers with a status and its own text.
func say(w http.ResponseWriter, status int) {
	text := http.StatusText(status)
	if text == "" {
		status = http.StatusInternalServerError
		text = http.StatusText(status)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, text)
}

func main() {
	plugin.Main(plugin.Plugin{Name: "middleware.http.opa", Version: "1.0.0",
		Types: []plugin.Type{{Type: "middleware.http.opa", New: func() any { return &filter{} }}}})
}
