package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kraudcloud/kattest/reproducible/lock"
	"github.com/kraudcloud/kattest/reproducible/mirror"
)

// aptHelper downloads with apt's own proxies, credentials and transports.
const aptHelper = "/usr/lib/apt/apt-helper"

// stall is how long a download may stand still.
const stall = time.Minute

// mirrors remembers the machine's configuration, by archive.
type mirrors struct {
	mu    sync.Mutex
	known map[string]found
}

type found struct {
	bases []string
	err   error
}

// urls returns where an input's file may be.
func (m *mirrors) urls(ctx context.Context, in lock.Input) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.known[in.Archive]
	if !ok {
		if in.Archive == lock.ArchiveGo {
			at.bases, at.err = mirror.Go(ctx)
		} else {
			at.bases, at.err = mirror.Debian(ctx, in.Archive)
		}
		if m.known == nil {
			m.known = map[string]found{}
		}
		m.known[in.Archive] = at
	}
	path := (&url.URL{Path: in.Path}).EscapedPath()
	urls := make([]string, len(at.bases))
	for i, base := range at.bases {
		urls[i] = base + "/" + path
	}
	return urls, at.err
}

func (f *Fetcher) fromMirror(ctx context.Context, in lock.Input, from string, show progress) error {
	if in.Archive == lock.ArchiveGo {
		return f.fromHTTP(ctx, in, from, show)
	}
	return f.fromApt(ctx, in, from, show)
}

func (f *Fetcher) fromApt(ctx context.Context, in lock.Input, from string, show progress) error {
	// Not in the cache: apt downloads as a user who may not reach that folder.
	dir, err := os.MkdirTemp("", "kattest-fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := giveToApt(dir); err != nil {
		return err
	}
	file := filepath.Join(dir, "file")
	stop := show.watch(file)
	defer stop()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, aptHelper, "-qq", "download-file", from, file)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return reason(stderr.String(), err)
	}
	r, err := os.Open(file)
	if err != nil {
		return err
	}
	defer r.Close()
	return f.store(in, r)
}

// giveToApt lets apt drop root's rights for the download.
func giveToApt(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	apt, err := user.Lookup("_apt")
	if _, none := errors.AsType[user.UnknownUserError](err); none {
		return nil // then apt does not drop them
	}
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(apt.Uid)
	if err != nil {
		return err
	}
	return os.Chown(dir, uid, -1)
}

// reason takes apt's first complaint, without its address, which the caller names.
func reason(stderr string, err error) error {
	for line := range strings.Lines(stderr) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "E: "); ok {
			text = strings.TrimPrefix(text, "Failed to fetch ")
			if _, after, ok := strings.Cut(text, "  "); ok {
				text = after
			}
			return errors.New(text)
		}
	}
	return fmt.Errorf("apt-helper: %w", err)
}

func (f *Fetcher) fromHTTP(ctx context.Context, in lock.Input, from string, show progress) error {
	if u, err := url.Parse(from); err == nil && u.Scheme == "file" {
		r, err := os.Open(u.Path)
		if err != nil {
			return fmt.Errorf("opening it: %w", errors.Unwrap(err))
		}
		defer r.Close()
		return f.store(in, show.reader(r))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(stall, func() { cancel(fmt.Errorf("nothing came for %v", stall)) })
	defer watchdog.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return errors.Unwrap(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	err = f.store(in, show.reader(&alive{resp.Body, watchdog}))
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// alive puts the watchdog off with every read.
type alive struct {
	r        io.Reader
	watchdog *time.Timer
}

func (a *alive) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if n > 0 {
		a.watchdog.Reset(stall)
	}
	return n, err
}
