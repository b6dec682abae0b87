package plugin

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"testing"
)

type inner struct {
	Text string `pb:"1"`
}
type everything struct {
	S    string            `pb:"1"`
	B    []byte            `pb:"2"`
	Bool bool              `pb:"3"`
	I32  int32             `pb:"4"`
	I64  int64             `pb:"5"`
	U32  uint32            `pb:"6"`
	U64  uint64            `pb:"7"`
	F64  float64           `pb:"8"`
	F32  float32           `pb:"9"`
	In   inner             `pb:"10"`
	P    *inner            `pb:"11"`
	L    []inner           `pb:"12"`
	SL   []string          `pb:"13"`
	N    []int64           `pb:"14"`
	M    map[string]string `pb:"15"`
	MM   map[string]*inner `pb:"16"`
	Opt  *uint32           `pb:"17"`
	One  []byte            `pb:"18,oneof"`
}

func TestMessagesComeBackAsTheyWent(t *testing.T) {
	n := uint32(0)
	in := everything{"s", []byte{0, 255}, true, -1, -1 << 62, 1 << 31, 1 << 63, 1.5, -2.5, inner{"a"}, &inner{"b"}, []inner{{"c"}, {""}},
		[]string{"x", ""}, []int64{1, -2}, map[string]string{"k": "v", "": ""}, map[string]*inner{"m": {"n"}}, &n, []byte{}}
	b, err := Marshal(&in)
	if err != nil {
		t.Fatal(err)
	}
	var out everything
	if err := Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(in, out) {
		t.Errorf("got %+v, want %+v", out, in)
	}
}

func TestPackedNumbersAndUnknownFieldsAreRead(t *testing.T) {
	var out everything
	if err := Unmarshal([]byte{0x72, 3, 1, 2, 3, 0xf8, 0x07, 9, 0xa2, 0x06, 1, 7}, &out); err != nil || !reflect.DeepEqual(out.N, []int64{1, 2, 3}) {
		t.Errorf("%v %v", out.N, err)
	}
}

func TestBrokenMessagesAreRefused(t *testing.T) {
	for _, b := range [][]byte{{0}, {0x0a}, {0x0a, 5, 'x'}, {0x08, 1}, {0x1a, 0}, {0x0b}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, {0x41, 1}} {
		if err := Unmarshal(b, &everything{}); err == nil {
			t.Errorf("% x was taken", b)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	b, _ := Marshal(&everything{S: "s", M: map[string]string{"k": "v"}, N: []int64{1}})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m, again everything
		if Unmarshal(b, &m) != nil {
			return
		}
		x, err := Marshal(&m)
		if err == nil {
			err = Unmarshal(x, &again)
		}
		y, _ := Marshal(&again)
		if err != nil || !bytes.Equal(x, y) {
			t.Errorf("% x: %v", b, err)
		}
	})
}

func TestAnEtagErrorCarriesItsDetails(t *testing.T) {
	e := asError(EtagMismatch("x"))
	var st rpcStatus
	if err := Unmarshal(e.details, &st); err != nil || st.Code != 9 || len(st.Details) != 1 {
		t.Fatalf("%+v %v", st, err)
	}
	var bad badRequest
	if err := Unmarshal(st.Details[0].Value, &bad); err != nil || bad.Violations[0].Field != "etag" {
		t.Errorf("%+v %v", bad, err)
	}
}

func TestABulkFailureNamesEachItem(t *testing.T) {
	err := asError(bulkError([]string{"a", "b", "c"}, []error{nil, EtagInvalid("q"), errors.New("disk")}))
	var st rpcStatus
	if Unmarshal(err.details, &st) != nil || len(st.Details) != 2 || err.Code != InvalidArgument {
		t.Errorf("%+v %+v", err, st)
	}
	if bulkError([]string{"a"}, []error{nil}) != nil {
		t.Error("nothing failed")
	}
}

func TestOtherErrorsHaveTheirCodes(t *testing.T) {
	for err, code := range map[error]Code{context.Canceled: Canceled, context.DeadlineExceeded: DeadlineExceeded, errors.New("x"): Internal} {
		if asError(err).Code != code {
			t.Errorf("%v: %d", err, asError(err).Code)
		}
	}
}
