package release

import (
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// docs/spec/release.schema.json takes what Statement writes, and nothing that
// ParseStatement refuses for its form.
func TestSchema(t *testing.T) {
	f, err := os.Open("../../docs/spec/release.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	document, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("release", document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("release")
	if err != nil {
		t.Fatal(err)
	}
	validate := func(statement string) error {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(statement))
		if err != nil {
			t.Fatal(err)
		}
		return schema.Validate(v)
	}
	data, err := sample().Statement()
	if err != nil {
		t.Fatal(err)
	}
	good := string(data)
	if err := validate(good); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ old, change string }{
		{`"serial":7`, `"serial":-1`},
		{`"serial":7`, `"serial":9007199254740992`},
		{`"serial":7`, `"serial":7,"colour":"red"`},
		{`"_type":"https://in-toto.io/Statement/v1"`, `"_type":"https://in-toto.io/Statement/v0.1"`},
		{`release/v3"`, `release/v2"`},
		{`"kernelHashes":"enforced"`, `"kernelHashes":"perhaps"`},
		{`"vcpus":1`, `"vcpus":0`},
		{`"vcpus":1`, `"vcpus":513`},
		{`"name":"vmlinuz"`, `"name":"../vmlinuz"`},
		{`"type":"SNP_SEC_MEM"`, `"type":"OTHER"`},
		{`"lock":"0000`, `"lock":"000g`},
		{`"cmdline":"console=`, `"cmdline":"\n=`},
	} {
		bad := strings.Replace(good, tt.old, tt.change, 1)
		if bad == good {
			t.Fatalf("no %s in the statement", tt.old)
		}
		if validate(bad) == nil {
			t.Errorf("the schema takes %s", tt.change)
		}
		if _, err := ParseStatement([]byte(bad)); err == nil {
			t.Errorf("ParseStatement takes %s", tt.change)
		}
	}
}
