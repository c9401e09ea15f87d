package strictjson

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

type sample struct {
	Name  string            `json:"name"`
	Count int               `json:"count,omitempty"`
	Inner []struct{ A int } `json:"inner,omitempty"`
	Map   map[string]string `json:"map,omitempty"`
}

func TestDecode(t *testing.T) {
	for _, tt := range []struct{ name, in, err string }{
		{"good", `{"name":"x","count":3,"inner":[{"A":1}],"map":{"k":"v"}}` + "\n", ""},
		{"unknown member", `{"name":"x","other":1}`, `unknown member "other"`},
		{"unknown inner member", `{"inner":[{"A":1,"b":2}]}`, `unknown member "b"`},
		{"other case", `{"Name":"x"}`, `unknown member "Name"`},
		{"duplicate", `{"name":"x","name":"y"}`, `"name" stands twice`},
		{"duplicate by escape", `{"name":"x","\u006eame":"y"}`, `"name" stands twice`},
		{"duplicate in map", `{"map":{"k":"a","k":"b"}}`, `"k" stands twice`},
		{"trailing", `{"name":"x"}{}`, "offset 13: invalid character"},
		{"cut off", `{"name":"x"`, "offset 11: unexpected end"},
		{"empty", ``, "unexpected end"},
		{"invalid UTF-8", "{\"name\":\"\xff\"}", "invalid UTF-8"},
		{"deep", `{"map":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}", "nested deeper"},
		{"too many", `{"map":[` + strings.Repeat("0,", MaxValues) + "0]}", "too many values"},
		{"no object", `{"inner":[7]}`, "offset 10: not an object"},
		{"wrong type", `{"name":7}`, "cannot unmarshal number"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var v sample
			err := Decode([]byte(tt.in), &v)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
		})
	}
}

// The example of RFC 8785, section 3.2.3, and the strings of 3.2.2.2.
func TestCanonical(t *testing.T) {
	in := "{\"\u20ac\":\"Euro Sign\",\"\\r\":\"Carriage Return\",\"\ufb33\":\"Hebrew Letter Dalet With Dagesh\",\"1\":\"One\",\"\U0001f600\":\"Emoji: Grinning Face\",\"\u0080\":\"Control\",\"\u00f6\":\"Latin Small Letter O With Diaeresis\"}"
	want := "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u0080\":\"Control\",\"\u00f6\":\"Latin Small Letter O With Diaeresis\",\"\u20ac\":\"Euro Sign\",\"\U0001f600\":\"Emoji: Grinning Face\",\"\ufb33\":\"Hebrew Letter Dalet With Dagesh\"}"
	got, err := Canonical(json.RawMessage(in))
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
	got, err = Canonical([]any{"\u20ac$\u000f\nA'B\"\\\"/<>&\u2028", 9007199254740991, true, nil})
	if want := "[\"\u20ac$\\u000f\\nA'B\\\"\\\\\\\"/<>&\u2028\",9007199254740991,true,null]"; err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	for _, bad := range []any{1.5, uint64(1 << 53)} {
		if b, err := Canonical(bad); err == nil || b != nil {
			t.Errorf("Canonical(%v) = %s, %v, want an error", bad, b, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"name":"x","count":3,"inner":[{"A":1}]}`))
	f.Add([]byte(` [ { "a\\\"" : [ ] , "b" : -1e3 } , null, "\u0041" ] `))
	f.Fuzz(func(t *testing.T, data []byte) {
		var tree, again any
		if err := Decode(data, &tree); err == nil && (json.Unmarshal(data, &again) != nil || !reflect.DeepEqual(tree, again)) {
			t.Fatalf("read otherwise than by encoding/json: %q", data)
		}
		var v sample
		if Decode(data, &v) != nil {
			return
		}
		b, err := Canonical(v)
		if err != nil {
			return // a number that JSON holds and the canonical form does not
		}
		var w sample
		if err := Decode(b, &w); err != nil {
			t.Fatalf("canonical form %q is refused: %v", b, err)
		}
		if b2, _ := Canonical(w); !bytes.Equal(b, b2) {
			t.Fatalf("not stable: %q, %q", b, b2)
		}
	})
}
