// Package resolve turns the requests of a lock file into inputs: Debian
// packages by apt with its signatures, Go modules by the go command with its
// checksum database.
package resolve

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/mod/module"

	"github.com/kraudcloud/kattest/reproducible/debian"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// Lock resolves all sets to what this machine's mirrors offer now. Progress
// goes to log.
func Lock(ctx context.Context, sets []lock.Set, log io.Writer) (lock.Lock, error) {
	var all []lock.Input
	for _, set := range sets {
		fmt.Fprintf(log, "lock: set %s\n", set.Name)
		inputs, err := resolve(ctx, set, log)
		if err != nil {
			return lock.Lock{}, err
		}
		var size int64
		for _, in := range inputs {
			size += in.Size
		}
		fmt.Fprintf(log, "lock: set %s: %d inputs, %.1f MB\n", set.Name, len(inputs), float64(size)/1e6)
		all = append(all, inputs...)
	}
	return lock.New(sets, all)
}

func resolve(ctx context.Context, set lock.Set, log io.Writer) ([]lock.Input, error) {
	if set.Kind != lock.KindGo {
		return debian.Resolve(ctx, set, log)
	}
	var inputs []lock.Input
	for _, request := range set.Packages {
		in, err := goModule(ctx, request)
		if err != nil {
			return nil, fmt.Errorf("set %s: %w", set.Name, err)
		}
		in.Sets = []string{set.Name}
		inputs = append(inputs, in)
	}
	return inputs, nil
}

// goModule resolves PATH@VERSION. The go command downloads the module and
// checks it against the checksum database.
func goModule(ctx context.Context, request string) (lock.Input, error) {
	path, version, _ := strings.Cut(request, "@")
	dir, err := os.MkdirTemp("", "kattest-go-") // no go.mod of any project
	if err != nil {
		return lock.Input{}, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", request)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN=local", "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, runErr := cmd.Output()
	var got struct{ Version, Zip, Error string }
	if err := json.Unmarshal(out, &got); err != nil && runErr == nil {
		return lock.Input{}, fmt.Errorf("go mod download %s: %w", request, err)
	}
	if got.Error != "" {
		return lock.Input{}, fmt.Errorf("go mod download %s: %s", request, got.Error)
	}
	if runErr != nil {
		return lock.Input{}, fmt.Errorf("go mod download %s: %w: %s", request, runErr, strings.TrimSpace(stderr.String()))
	}
	if got.Version != version {
		return lock.Input{}, fmt.Errorf("go mod download %s: got version %s", request, got.Version)
	}
	escapedPath, errPath := module.EscapePath(path)
	escapedVersion, errVersion := module.EscapeVersion(version)
	if err := errors.Join(errPath, errVersion); err != nil {
		return lock.Input{}, err
	}
	in := lock.Input{
		Name: path, Version: version, Kind: lock.KindGo, Archive: lock.ArchiveGo,
		Path: escapedPath + "/@v/" + escapedVersion + ".zip",
	}
	in.Size, in.SHA256, err = digest(got.Zip)
	return in, err
}

func digest(file string) (int64, string, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return n, hex.EncodeToString(h.Sum(nil)), err
}
