package reproducible

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/reproducible/fetch"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// exported returns an archive of what the agent of here is built from. With the
// kernel's inputs, which are packed alike, it would have 300 MB.
func exported(t *testing.T, here *builder) (archive []byte, o Options, toolchain lock.Input) {
	t.Helper()
	toolchain, err := here.input(lock.KindGo, toolchainModule)
	if err != nil {
		t.Fatal(err)
	}
	var sets []lock.Set
	for _, s := range here.lock.Sets {
		if s.Name == toolchain.Sets[0] {
			sets = append(sets, s)
		}
	}
	toolchain.Sets = toolchain.Sets[:1]
	small, err := lock.New(sets, []lock.Input{toolchain}) // the others have 250 MB, and are packed alike
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "lock.json")
	if err := small.Write(file); err != nil {
		t.Fatal(err)
	}
	o = Options{Source: here.Source, Lock: file, Out: t.TempDir(), Cache: here.fetch.Cache, Jobs: 3}
	var b bytes.Buffer
	if err := Export(t.Context(), o, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), o, toolchain
}

// An archive whose input was damaged is told by the input.
func TestDamagedArchive(t *testing.T) {
	archive, _, toolchain := exported(t, agentBuilder(t, "here", 1))
	i := bytes.LastIndex(archive, []byte("golang.org/toolchain@")) // in the zip file's list
	archive[i] ^= 1
	name := filepath.Join(t.TempDir(), "inputs.tar")
	if err := os.WriteFile(name, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := (&fetch.Fetcher{Cache: t.TempDir(), Folders: []string{name}, Offline: true}).Get(t.Context(), toolchain)
	if missing, ok := errors.AsType[*fetch.UnavailableError](err); !ok || !strings.Contains(missing.Error(), "SHA-256") {
		t.Errorf("error %v", err)
	}
}
