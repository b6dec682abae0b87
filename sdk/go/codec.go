package plugin

import (
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"sort"
	"strconv"
	"sync"
)

// Protocol buffers by struct tags: `pb:"3"` is field 3 of the message. A Go type says how it travels:
//
//	string, []byte                 as they are          bool, int32, int64, uint32, uint64   varint
//	float64, float32               fixed width          struct, *struct                      a message
//	[]T                            repeated             map[string]T                         a map
//	*string, *uint32, ...          proto3 optional      `pb:"3,oneof"` on a pointer          a oneof's member: sent even when empty
//
// Unknown fields are skipped, zero values are not sent. A message that has Marshal() ([]byte, error) and Unmarshal([]byte) error
// is asked instead, so that generated messages fit too.

// Depth and length limits of what is read: a hostile sender costs no more than its message.
const maxDepth = 64

type marshaler interface{ Marshal() ([]byte, error) }
type unmarshaler interface{ Unmarshal([]byte) error }

type field struct {
	number uint64
	index  int
	oneof  bool
}
type plan struct {
	fields []field
	by     map[uint64]int
}

var plans sync.Map // reflect.Type -> *plan

func planOf(t reflect.Type) (*plan, error) {
	if p, ok := plans.Load(t); ok {
		return p.(*plan), nil
	}
	p := &plan{by: map[uint64]int{}}
	for i := 0; i < t.NumField(); i++ {
		tag, ok := t.Field(i).Tag.Lookup("pb")
		if !ok {
			continue
		}
		f := field{index: i}
		digits := tag
		for k := range tag {
			if tag[k] == ',' {
				digits, f.oneof = tag[:k], tag[k+1:] == "oneof"
				break
			}
		}
		n, err := strconv.ParseUint(digits, 10, 29)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%s.%s: the tag pb:%q is no field number", t, t.Field(i).Name, tag)
		}
		f.number = n
		p.by[n] = len(p.fields)
		p.fields = append(p.fields, f)
	}
	sort.SliceStable(p.fields, func(a, b int) bool { return p.fields[a].number < p.fields[b].number })
	for i, f := range p.fields {
		p.by[f.number] = i
	}
	plans.Store(t, p)
	return p, nil
}

// ---- writing ----

// Marshal gives the message's bytes; m is a pointer to a tagged struct.
func Marshal(m any) ([]byte, error) {
	if g, ok := m.(marshaler); ok {
		return g.Marshal()
	}
	v := reflect.ValueOf(m)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return nil, fmt.Errorf("%T is no message: give a pointer to a struct", m)
	}
	return appendMessage(nil, v.Elem())
}

func appendMessage(b []byte, v reflect.Value) ([]byte, error) {
	p, err := planOf(v.Type())
	for i := 0; err == nil && i < len(p.fields); i++ {
		b, err = appendField(b, &p.fields[i], v.Field(p.fields[i].index))
	}
	return b, err
}

func appendField(b []byte, f *field, v reflect.Value) ([]byte, error) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return b, nil
		}
		return appendValue(b, f.number, v.Elem())
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			if v.Len() == 0 && !(f.oneof && !v.IsNil()) {
				return b, nil
			}
			return appendValue(b, f.number, v)
		}
		return appendList(b, f.number, v)
	case reflect.Map:
		return appendMap(b, f.number, v)
	case reflect.Struct:
		return appendValue(b, f.number, v)
	default:
		if v.IsZero() {
			return b, nil
		}
		return appendValue(b, f.number, v)
	}
}

func appendList(b []byte, number uint64, v reflect.Value) ([]byte, error) {
	var err error
	for i := 0; err == nil && i < v.Len(); i++ {
		e := v.Index(i)
		if e.Kind() == reflect.Pointer {
			if e.IsNil() {
				continue
			}
			e = e.Elem()
		}
		b, err = appendValue(b, number, e) // numbers unpacked: every reader takes both forms
	}
	return b, err
}

func appendMap(b []byte, number uint64, v reflect.Value) ([]byte, error) {
	keys := v.MapKeys()
	sort.Slice(keys, func(i, k int) bool { return keys[i].String() < keys[k].String() })
	for _, k := range keys {
		entry, err := appendValue(nil, 1, k)
		e := v.MapIndex(k)
		if err == nil && (e.Kind() != reflect.Pointer || !e.IsNil()) {
			entry, err = appendValue(entry, 2, reflect.Indirect(e))
		}
		if err != nil {
			return nil, err
		}
		b = appendBytes(b, number, entry)
	}
	return b, nil
}

func appendBytes(b []byte, number uint64, v []byte) []byte {
	b = binary.AppendUvarint(b, number<<3|2)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

func appendValue(b []byte, number uint64, v reflect.Value) ([]byte, error) {
	varint := func(n uint64) []byte { return binary.AppendUvarint(binary.AppendUvarint(b, number<<3), n) }
	switch v.Kind() {
	case reflect.String:
		return appendBytes(b, number, []byte(v.String())), nil
	case reflect.Slice:
		return appendBytes(b, number, v.Bytes()), nil
	case reflect.Bool:
		if v.Bool() {
			return varint(1), nil
		}
		return varint(0), nil
	case reflect.Int32, reflect.Int64:
		return varint(uint64(v.Int())), nil
	case reflect.Uint32, reflect.Uint64:
		return varint(v.Uint()), nil
	case reflect.Float64:
		return binary.LittleEndian.AppendUint64(binary.AppendUvarint(b, number<<3|1), math.Float64bits(v.Float())), nil
	case reflect.Float32:
		return binary.LittleEndian.AppendUint32(binary.AppendUvarint(b, number<<3|5), math.Float32bits(float32(v.Float()))), nil
	case reflect.Struct:
		inner, err := appendMessage(nil, v)
		return appendBytes(b, number, inner), err
	default:
		return nil, fmt.Errorf("a field of type %s cannot travel", v.Type())
	}
}

// ---- reading ----

var errWire = fmt.Errorf("the request is not a valid message")

// Unmarshal reads the message's bytes into m, a pointer to a tagged struct. What m keeps is copied.
func Unmarshal(b []byte, m any) error {
	if g, ok := m.(unmarshaler); ok {
		return g.Unmarshal(b)
	}
	v := reflect.ValueOf(m)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("%T is no message: give a pointer to a struct", m)
	}
	return readMessage(b, v.Elem(), 0)
}

// token is one field as it stands on the wire.
type token struct {
	number, scalar uint64
	bytes          []byte
	kind           uint64
}

func next(b []byte) (token, []byte, error) {
	tag, n := binary.Uvarint(b)
	t := token{number: tag >> 3, kind: tag & 7}
	if n <= 0 || t.number == 0 {
		return t, nil, errWire
	}
	b = b[n:]
	switch t.kind {
	case 0:
		if t.scalar, n = binary.Uvarint(b); n <= 0 {
			return t, nil, errWire
		}
	case 1:
		if n = 8; len(b) < n {
			return t, nil, errWire
		}
		t.scalar = binary.LittleEndian.Uint64(b)
	case 5:
		if n = 4; len(b) < n {
			return t, nil, errWire
		}
		t.scalar = uint64(binary.LittleEndian.Uint32(b))
	case 2:
		size, k := binary.Uvarint(b)
		if k <= 0 || size > uint64(len(b)-k) {
			return t, nil, errWire
		}
		t.bytes = b[k : k+int(size)]
		n = k + int(size)
	default: // groups are of proto2
		return t, nil, errWire
	}
	return t, b[n:], nil
}

func readMessage(b []byte, v reflect.Value, depth int) error {
	p, err := planOf(v.Type())
	if err == nil && depth > maxDepth {
		err = errWire
	}
	for err == nil && len(b) > 0 {
		var t token
		if t, b, err = next(b); err != nil {
			break
		}
		if i, ok := p.by[t.number]; ok {
			err = readField(t, v.Field(p.fields[i].index), depth)
		}
	}
	return err
}

func readField(t token, v reflect.Value, depth int) error {
	switch v.Kind() {
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return readValue(t, v, depth)
		}
		return readList(t, v, depth)
	case reflect.Map:
		return readMap(t, v, depth)
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return readValue(t, v.Elem(), depth)
	default:
		return readValue(t, v, depth)
	}
}

func readList(t token, v reflect.Value, depth int) error {
	e := reflect.New(v.Type().Elem()).Elem()
	packed := t.kind == 2
	switch e.Kind() {
	case reflect.String, reflect.Slice, reflect.Struct, reflect.Pointer:
		packed = false
	}
	if !packed {
		if err := readField(t, e, depth); err != nil {
			return err
		}
		v.Set(reflect.Append(v, e))
		return nil
	}
	for b := t.bytes; len(b) > 0; {
		one, n := token{}, 0
		switch e.Kind() {
		case reflect.Float64, reflect.Float32:
			n = int(e.Type().Size())
			if len(b) < n {
				return errWire
			}
			one.kind = map[int]uint64{8: 1, 4: 5}[n]
			if n == 8 {
				one.scalar = binary.LittleEndian.Uint64(b)
			} else {
				one.scalar = uint64(binary.LittleEndian.Uint32(b))
			}
		default:
			if one.scalar, n = binary.Uvarint(b); n <= 0 {
				return errWire
			}
		}
		if err := readValue(one, e, depth); err != nil {
			return err
		}
		v.Set(reflect.Append(v, e))
		b = b[n:]
	}
	return nil
}

func readMap(t token, v reflect.Value, depth int) error {
	if t.kind != 2 {
		return errWire
	}
	key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
	for b := t.bytes; len(b) > 0; {
		var e token
		var err error
		if e, b, err = next(b); err != nil {
			return err
		}
		switch e.number {
		case 1:
			err = readValue(e, key, depth)
		case 2:
			err = readField(e, value, depth)
		}
		if err != nil {
			return err
		}
	}
	if value.Kind() == reflect.Pointer && value.IsNil() {
		value.Set(reflect.New(value.Type().Elem()))
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	v.SetMapIndex(key, value)
	return nil
}

func readValue(t token, v reflect.Value, depth int) error {
	want := uint64(0)
	switch v.Kind() {
	case reflect.String, reflect.Slice, reflect.Struct:
		want = 2
	case reflect.Float64:
		want = 1
	case reflect.Float32:
		want = 5
	}
	if t.kind != want {
		return errWire
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(string(t.bytes))
	case reflect.Slice:
		v.SetBytes(append([]byte{}, t.bytes...))
	case reflect.Struct:
		return readMessage(t.bytes, v, depth+1)
	case reflect.Bool:
		v.SetBool(t.scalar != 0)
	case reflect.Int32:
		v.SetInt(int64(int32(t.scalar)))
	case reflect.Int64:
		v.SetInt(int64(t.scalar))
	case reflect.Uint32:
		v.SetUint(uint64(uint32(t.scalar)))
	case reflect.Uint64:
		v.SetUint(t.scalar)
	case reflect.Float64:
		v.SetFloat(math.Float64frombits(t.scalar))
	case reflect.Float32:
		v.SetFloat(float64(math.Float32frombits(uint32(t.scalar))))
	default:
		return fmt.Errorf("a field of type %s cannot travel", v.Type())
	}
	return nil
}
