// Package strictjson reads JSON that an adversary may have written, and writes
// the canonical form of RFC 8785 (JCS).
//
// Decode accepts one value only and refuses what encoding/json lets pass:
// unknown and duplicate members, member names in another case, trailing data,
// invalid UTF-8, deep nesting and endless lists. Canonical covers the values that this
// project's formats use: numbers are integers within ±(2^53−1).
package strictjson

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds of what Decode reads: the nesting of arrays and objects, and the number
// of values in all.
const (
	MaxDepth  = 32
	MaxValues = 1 << 20
)

// Decode reads the single JSON value in data into the value that v points to.
// An error names the byte offset or the member at fault.
func Decode(data []byte, v any) error { return DecodeBounded(data, v, MaxValues) }

// DecodeBounded is Decode for formats of fewer values: what an adversary's bytes
// cost to read goes by their number.
func DecodeBounded(data []byte, v any, maxValues int) error {
	if !utf8.Valid(data) {
		return errors.New("invalid UTF-8")
	}
	if !json.Valid(data) { // syntax alone: one value and nothing behind it
		return syntaxError(json.Unmarshal(data, new(json.RawMessage)))
	}
	w := walker{data: data, left: maxValues, fields: map[reflect.Type]map[string]reflect.Type{}}
	if err := w.value(reflect.TypeOf(v), 0); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

func syntaxError(err error) error {
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("offset %d: %w", e.Offset, err)
	}
	return err
}

// walker goes through JSON of good syntax once: bounded depth, no member twice in
// one object, and for the types known beforehand no name in another case. It
// makes no copies but of member names, whatever the input.
type walker struct {
	data   []byte
	at     int
	left   int                                      // values that may yet come
	fields map[reflect.Type]map[string]reflect.Type // of structs, by JSON name
}

func (w *walker) value(t reflect.Type, depth int) error {
	if depth > MaxDepth {
		return fmt.Errorf("offset %d: nested deeper than %d", w.at, MaxDepth)
	}
	if w.left--; w.left < 0 {
		return fmt.Errorf("offset %d: too many values", w.at)
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	first := w.next()
	if isObject(t) && first != '{' && first != 'n' {
		return fmt.Errorf("offset %d: not an object", w.at)
	}
	switch first {
	case '{':
		return w.object(t, depth)
	case '[':
		return w.array(t, depth)
	case '"':
		w.text()
	default:
		for w.at < len(w.data) && !strings.ContainsRune(",]} \t\r\n", rune(w.data[w.at])) {
			w.at++
		}
	}
	return nil
}

// next returns the byte after white space, without taking it.
func (w *walker) next() byte {
	for w.at < len(w.data) && strings.IndexByte(" \t\r\n", w.data[w.at]) >= 0 {
		w.at++
	}
	return w.data[w.at] // in a value of good syntax there is one
}

// text takes a string and returns it with its quotes.
func (w *walker) text() []byte {
	start := w.at
	for w.at++; w.data[w.at] != '"'; w.at++ {
		if w.data[w.at] == '\\' {
			w.at++
		}
	}
	w.at++
	return w.data[start:w.at]
}

func (w *walker) array(t reflect.Type, depth int) error {
	for w.at++; w.next() != ']'; {
		if w.data[w.at] == ',' {
			w.at++
		}
		if err := w.value(elem(t), depth+1); err != nil {
			return err
		}
	}
	w.at++
	return nil
}

func (w *walker) object(t reflect.Type, depth int) error {
	var seen map[string]bool
	for w.at++; w.next() != '}'; {
		if w.data[w.at] == ',' {
			w.at++
			w.next()
		}
		var name string
		if err := json.Unmarshal(w.text(), &name); err != nil {
			return err
		}
		if seen[name] {
			return fmt.Errorf("offset %d: member %.80q stands twice", w.at, name)
		}
		if seen == nil {
			seen = map[string]bool{}
		}
		seen[name] = true
		child := elem(t)
		if t != nil && t.Kind() == reflect.Struct {
			var ok bool
			if child, ok = w.members(t)[name]; !ok {
				return fmt.Errorf("offset %d: unknown member %.80q", w.at, name)
			}
		}
		w.next()
		w.at++ // the colon
		if err := w.value(child, depth+1); err != nil {
			return err
		}
	}
	w.at++
	return nil
}

// isObject reports whether t is read from an object and nothing else.
func isObject(t reflect.Type) bool {
	if t == nil || t.Kind() != reflect.Struct {
		return false
	}
	p := reflect.PointerTo(t)
	return !p.Implements(reflect.TypeFor[json.Unmarshaler]()) && !p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func elem(t reflect.Type) reflect.Type {
	if t == nil {
		return nil
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Array, reflect.Map:
		return t.Elem()
	default:
		return nil
	}
}

// members returns a struct's fields by their exact JSON names.
func (w *walker) members(t reflect.Type) map[string]reflect.Type {
	if known, ok := w.fields[t]; ok {
		return known
	}
	m := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		if !f.IsExported() || f.Anonymous {
			continue
		}
		switch name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name {
		case "-":
		case "":
			m[f.Name] = f.Type
		default:
			m[name] = f.Type
		}
	}
	w.fields[t] = m
	return m
}

// Canonical returns v's JSON in the canonical form of RFC 8785.
func Canonical(v any) ([]byte, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(plain))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, err
	}
	return appendCanonical(nil, tree)
}

func appendCanonical(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case string:
		return appendString(b, v), nil
	case json.Number:
		const maxSafe = 1<<53 - 1 // RFC 8785, section 3.2.2.3: beyond it a double is not exact
		n, err := strconv.ParseInt(v.String(), 10, 64)
		if err != nil || n < -maxSafe || n > maxSafe {
			return nil, fmt.Errorf("number %s is not an integer within ±(2^53-1)", v)
		}
		return strconv.AppendInt(b, n, 10), nil
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			var err error
			if b, err = appendCanonical(b, e); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		// RFC 8785, section 3.2.3: by UTF-16 code units.
		slices.SortFunc(names, func(a, b string) int {
			return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
		})
		b = append(b, '{')
		for i, name := range names {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, name), ':')
			var err error
			if b, err = appendCanonical(b, v[name]); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	default:
		return nil, fmt.Errorf("cannot encode %T", v)
	}
}

// appendString escapes as RFC 8785, section 3.2.2.2 does: the short forms where
// there is one, \u00xx for other control characters, all else as it is.
func appendString(b []byte, s string) []byte {
	const short = "\b\t\n\f\r\"\\"
	const letter = `btnfr"\`
	b = append(b, '"')
	for _, r := range s {
		if i := strings.IndexRune(short, r); i >= 0 {
			b = append(b, '\\', letter[i])
		} else if r < 0x20 {
			b = fmt.Appendf(b, `\u%04x`, r)
		} else {
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
