package plugin

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// Code is a gRPC status code.
type Code int

const (
	Canceled           Code = 1
	Unknown            Code = 2
	InvalidArgument    Code = 3
	DeadlineExceeded   Code = 4
	NotFound           Code = 5
	AlreadyExists      Code = 6
	PermissionDenied   Code = 7
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Unimplemented      Code = 12
	Internal           Code = 13
	Unavailable        Code = 14
)

// Error is a documented outcome: what the caller sees.
type Error struct {
	Code    Code
	Message string
	etag    string // "mismatch" or "invalid"
	details []byte
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an Error. Any other error value of an operation is answered as Internal with its text.
func Errorf(code Code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// EtagMismatch: the ETag is not the item's current one, or a first write found an item.
func EtagMismatch(format string, args ...any) error {
	return etagError(FailedPrecondition, "mismatch", "possible etag mismatch. error from state store", fmt.Sprintf(format, args...))
}

// EtagInvalid: the text cannot be an ETag of this store.
func EtagInvalid(format string, args ...any) error {
	return etagError(InvalidArgument, "invalid", "invalid etag value", fmt.Sprintf(format, args...))
}

func etagError(code Code, kind, prefix, text string) error {
	full := prefix
	if text != "" {
		full += ": " + text
	}
	bad := badRequest{Violations: []violation{{Field: "etag", Description: text}}}
	return &Error{Code: code, Message: full, etag: kind, details: statusOf(code, full, []any{&bad}, "google.rpc.BadRequest")}
}

func asError(err error) *Error {
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: DeadlineExceeded, Message: err.Error()}
	case errors.Is(err, context.Canceled):
		return &Error{Code: Canceled, Message: err.Error()}
	default:
		return &Error{Code: Internal, Message: err.Error()}
	}
}

type violation struct {
	Field       string `pb:"1"`
	Description string `pb:"2"`
}
type badRequest struct {
	Violations []violation `pb:"1"`
}
type errorInfo struct {
	Reason   string            `pb:"1"`
	Domain   string            `pb:"2"`
	Metadata map[string]string `pb:"3"`
}
type anyMessage struct {
	URL   string `pb:"1"`
	Value []byte `pb:"2"`
}
type rpcStatus struct {
	Code    int32        `pb:"1"`
	Message string       `pb:"2"`
	Details []anyMessage `pb:"3"`
}

func statusOf(code Code, text string, details []any, name string) []byte {
	st := rpcStatus{Code: int32(code), Message: text}
	for _, d := range details {
		if b, err := Marshal(d); err == nil {
			st.Details = append(st.Details, anyMessage{"type.googleapis.com/" + name, b})
		}
	}
	b, err := Marshal(&st)
	if err != nil {
		return nil
	}
	return b
}

// Details travel as headers: what does not fit is left out.
const detailsMax = 5000

// bulkError tells of every item that failed; a single ETag error keeps the form that all runtimes know.
func bulkError(keys []string, errs []error) error {
	var first *Error
	var details []any
	text, size := "", 0
	for i, err := range errs {
		e := asError(err)
		if e == nil {
			continue
		}
		if first == nil {
			first = e
		}
		if size > detailsMax {
			continue
		}
		md := map[string]string{"key": keys[i], "code": strconv.Itoa(int(e.Code)), "message": e.Message}
		if e.etag != "" {
			md["etag"] = e.etag
		}
		if text != "" {
			text += "\n"
		}
		text += e.Message
		size += len(keys[i]) + 2*len(e.Message) + 80
		details = append(details, &errorInfo{"ITEM_FAILED", "microdapr", md})
	}
	if first == nil || (len(details) == 1 && first.etag != "") {
		if first == nil {
			return nil
		}
		return first
	}
	return &Error{Code: first.Code, Message: text, details: statusOf(first.Code, text, details, "google.rpc.ErrorInfo")}
}
