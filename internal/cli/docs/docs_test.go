// Package docs keeps docs/cli in step with the commands. To write it anew:
//
//	UPDATE=1 go test ./internal/cli/docs
package docs

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/kraudcloud/kattest/internal/cli/cradle"
	"github.com/kraudcloud/kattest/internal/cli/kattest"
	"github.com/kraudcloud/kattest/internal/cli/keyless"
	"github.com/kraudcloud/kattest/internal/cli/logs"
)

const folder = "../../../docs/cli"

func TestDocsAreCurrent(t *testing.T) {
	want := map[string]string{}
	for _, root := range []*cobra.Command{kattest.New(), keyless.New(), logs.New(), cradle.New()} {
		root.DisableAutoGenTag = true
		pages(t, root, want)
	}
	if os.Getenv("UPDATE") != "" {
		write(t, want)
	}
	got := map[string]string{}
	files, err := filepath.Glob(filepath.Join(folder, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got[filepath.Base(file)] = string(data)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/cli is not what the commands say (-want +got); UPDATE=1 writes it anew:\n%s", diff)
	}
}

func pages(t *testing.T, cmd *cobra.Command, to map[string]string) {
	t.Helper()
	if cmd.Name() == "help" || cmd.Name() == "completion" {
		return
	}
	var b bytes.Buffer
	if err := doc.GenMarkdown(cmd, &b); err != nil {
		t.Fatal(err)
	}
	to[strings.ReplaceAll(cmd.CommandPath(), " ", "_")+".md"] = b.String()
	for _, child := range cmd.Commands() {
		pages(t, child, to)
	}
}

func write(t *testing.T, pages map[string]string) {
	t.Helper()
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
