// Package strictjson reads JSON that an adversary may have written, and writes
// the canonical form of RFC 8785 (JCS).
//
// Decode accepts one value only and refuses what encoding/json lets pass:
// unknown and duplicate members, member names in another case, trailing data,
// invalid UTF-8 and deep nesting. Canonical covers the values that this
// project's formats use: numbers are integers within ±(2^53−1).
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is the deepest nesting of arrays and objects that is read.
const MaxDepth = 32

// Decode reads the single JSON value in data into the value that v points to.
// An error names the byte offset or the member at fault.
func Decode(data []byte, v any) error {
	if !utf8.Valid(data) {
		return errors.New("invalid UTF-8")
	}
	if err := checkSyntax(data, reflect.TypeOf(v)); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	return nil
}

// checkSyntax walks the tokens once: one value, bounded depth, no member twice
// in one object, and for the types known beforehand no name in another case.
func checkSyntax(data []byte, t reflect.Type) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := checkValue(dec, t, 0); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("offset %d: data after the value", dec.InputOffset())
	}
	return nil
}

func checkValue(dec *json.Decoder, t reflect.Type, depth int) error {
	if depth > MaxDepth {
		return fmt.Errorf("offset %d: nested deeper than %d", dec.InputOffset(), MaxDepth)
	}
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	seen := map[string]bool{}
	for dec.More() {
		child := elem(t)
		if delim == '{' {
			tok, err := dec.Token()
			if err != nil {
				return err
			}
			name := tok.(string)
			if seen[name] {
				return fmt.Errorf("offset %d: member %q stands twice", dec.InputOffset(), name)
			}
			seen[name] = true
			if t != nil && t.Kind() == reflect.Struct {
				if child, ok = field(t, name); !ok {
					return fmt.Errorf("offset %d: unknown member %q", dec.InputOffset(), name)
				}
			}
		}
		if err := checkValue(dec, child, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
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

// field finds the struct field whose JSON name is exactly name.
func field(t reflect.Type, name string) (reflect.Type, bool) {
	for _, f := range reflect.VisibleFields(t) {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.IsExported() && !f.Anonymous && (tag == name && tag != "-" || tag == "" && f.Name == name) {
			return f.Type, true
		}
	}
	return nil, false
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
