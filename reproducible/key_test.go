package reproducible

import (
	"maps"
	"testing"

	"github.com/kraudcloud/kattest/reproducible/firmware"
	"github.com/kraudcloud/kattest/reproducible/kernel"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

func TestKeyKeepsValuesApart(t *testing.T) {
	seen := map[string]string{}
	for name, add := range map[string]func(key){
		"nothing":            func(key) {},
		"a=b":                func(k key) { k.add("a", []byte("b")) },
		"ab=":                func(k key) { k.add("ab", nil) },
		"a= and b=":          func(k key) { k.add("a", nil); k.add("b", nil) },
		"a=b as two strings": func(k key) { k.strings("a", []string{"b", ""}) },
		"a=b as one string":  func(k key) { k.strings("a", []string{"b\x00"}) },
	} {
		k := newKey("test")
		add(k)
		if other, ok := seen[k.String()]; ok {
			t.Errorf("%s and %s have one key", name, other)
		}
		seen[k.String()] = name
	}
	if newKey("test").String() == newKey("test 2").String() {
		t.Error("the recipe's version does not count")
	}
	k := newKey("test")
	first := k.String()
	if again := k.String(); again != first {
		t.Error("reading a key changes it")
	}
}

// Each input of each artefact counts.
func TestKeysChangeWithEachInput(t *testing.T) {
	one := lock.Input{Name: "one", SHA256: "11"}
	two := lock.Input{Name: "two", SHA256: "22"}
	changed := lock.Input{Name: "one", SHA256: "12"}
	renamed := lock.Input{Name: "uno", SHA256: "11"}
	patches := []kernel.Patch{{Name: "1.patch", Data: []byte("a")}}
	files := map[string][]byte{"go.mod": []byte("module m"), "cmd/main.go": []byte("package main")}
	patch := firmware.Patch{Name: "a.patch", Data: []byte("change")}
	with := func(name, data string) map[string][]byte {
		more := maps.Clone(files)
		more[name] = []byte(data)
		return more
	}
	for what, keys := range map[string][]key{
		"firmware": {
			firmwareKey(firmwareRecipe{tarballs: []lock.Input{one, two}, patches: []firmware.Patch{patch}}),
			firmwareKey(firmwareRecipe{tarballs: []lock.Input{changed, two}, patches: []firmware.Patch{patch}}),
			firmwareKey(firmwareRecipe{tarballs: []lock.Input{renamed, two}, patches: []firmware.Patch{patch}}),
			firmwareKey(firmwareRecipe{tarballs: []lock.Input{one}, root: []lock.Input{two}, patches: []firmware.Patch{patch}}),
			firmwareKey(firmwareRecipe{tarballs: []lock.Input{one, two}}),
			firmwareKey(firmwareRecipe{tarballs: []lock.Input{one, two}, patches: []firmware.Patch{{Name: "a.patch", Data: []byte("other")}}}),
			firmwareKey(firmwareRecipe{tarballs: []lock.Input{one, two}, patches: []firmware.Patch{{Name: "b.patch", Data: []byte("change")}}}),
		},
		"kernel": {
			kernelKey(one, []lock.Input{two}, patches),
			kernelKey(changed, []lock.Input{two}, patches),
			kernelKey(one, []lock.Input{two, two}, patches),
			kernelKey(one, []lock.Input{changed}, patches),
			kernelKey(two, []lock.Input{one}, patches),
			kernelKey(one, nil, patches),
			kernelKey(one, []lock.Input{two}, nil),
			kernelKey(one, []lock.Input{two}, []kernel.Patch{{Name: "1.patch", Data: []byte("b")}}),
			kernelKey(one, []lock.Input{two}, []kernel.Patch{{Name: "2.patch", Data: []byte("a")}}),
		},
		"agent": {
			agentKey(one, files),
			agentKey(changed, files),
			agentKey(one, with("cmd/main.go", "package main // changed")),
			agentKey(one, with("cmd/more.go", "package main")),
			agentKey(one, with("go.sum", "h1:")),
		},
	} {
		seen := map[string]int{}
		for i, k := range keys {
			if j, ok := seen[k.String()]; ok {
				t.Errorf("%s: keys %d and %d are the same", what, j, i)
			}
			seen[k.String()] = i
		}
	}
}
