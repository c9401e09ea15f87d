package guest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/container"
	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/secrets"
)

// keySource is where the owner's secrets arrive.
type keySource interface {
	// wait waits for all that the spec expects, and returns it by name.
	wait(ctx context.Context, spec pod.Spec) (map[string]secrets.Secret, error)
}

// intake takes an owner's secrets, once, over the agent's port. Who sends them shows
// nothing but the owner's signature.
type intake struct {
	key      secrets.Key
	spec     pod.Spec
	hostData [32]byte
	events   *eventLog
	log      *slog.Logger

	mu  sync.Mutex // one message at a time
	got chan map[string]secrets.Secret
	has bool
}

// newIntake makes the key of this boot, which the event log names.
func newIntake(spec pod.Spec, events *eventLog, log *slog.Logger) (*intake, error) {
	key, err := secrets.NewKey()
	if err != nil {
		return nil, fmt.Errorf("making the key for secrets: %w", err)
	}
	hostData, err := spec.HostData()
	if err != nil {
		return nil, err
	}
	events.add(secrets.KeyEvent, base64.StdEncoding.EncodeToString(key.Public()))
	return &intake{
		key: key, spec: spec, hostData: hostData, events: events, log: log,
		got: make(chan map[string]secrets.Secret, 1),
	}, nil
}

// ServeHTTP answers a message. Whether secrets fit the spec is said only where an
// owner's key has signed them.
func (i *intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, secrets.MaxSize))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		http.Error(w, fmt.Sprintf("secrets: more than %d bytes", secrets.MaxSize), http.StatusRequestEntityTooLarge)
		return
	} else if err != nil {
		http.Error(w, "reading the secrets failed", http.StatusBadRequest)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	all, by, err := i.key.Open(body, i.hostData, i.spec.Secrets.Owners)
	switch {
	case errors.Is(err, secrets.ErrForm):
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	case errors.Is(err, secrets.ErrRecipient):
		http.Error(w, err.Error(), http.StatusConflict)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if err := secrets.Match(i.spec, all); err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	if i.has {
		http.Error(w, "the guest has its secrets already", http.StatusConflict)
		return
	}
	i.has = true
	taken := map[string]secrets.Secret{}
	i.events.add(eventOwner, by.String())
	for _, s := range all {
		taken[s.Name] = s
		i.events.add(eventSecret, s.Name)
	}
	i.log.Info("secrets", "owner", by, "count", len(taken))
	i.got <- taken
	w.WriteHeader(http.StatusOK)
}

func (i *intake) wait(ctx context.Context, _ pod.Spec) (map[string]secrets.Secret, error) {
	select {
	case all := <-i.got:
		return all, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// takeSecrets waits for what the spec expects, as long as it takes: the host may end
// that at any time.
func (a *agent) takeSecrets(ctx context.Context) error {
	if a.spec.Secrets == nil {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	taken, listened := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(listened)
		select {
		case <-a.control.stop:
			cancel(errStopped)
		case <-taken:
		}
	}()
	var err error
	a.secrets, err = a.keys.wait(ctx, a.spec)
	close(taken)
	<-listened
	if err == nil {
		err = context.Cause(ctx) // a stop that came with the secrets is not lost
	}
	return err
}

// secretsDir is where the agent puts the files of secrets, on a tmpfs of their own
// that is never swapped out: the guest has no swap.
const secretsDir = containerDir + "/secrets"

// placeSecrets puts secrets where the container finds them, and forgets them.
func (a *agent) placeSecrets(config *container.Config) error {
	if a.spec.Secrets == nil {
		return nil
	}
	if err := os.MkdirAll(secretsDir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", secretsDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700"); err != nil {
		return fmt.Errorf("mounting a tmpfs for secrets: %w", err)
	}
	for n, e := range a.spec.Secrets.Expects {
		s, ok := a.secrets[e.Name]
		if !ok {
			return fmt.Errorf("secret %q: missing", e.Name)
		}
		if e.Env != "" {
			config.Process.Env = append(slices.Clip(config.Process.Env), e.Env+"="+string(s.Value))
		}
		if e.File != "" {
			from := filepath.Join(secretsDir, strconv.Itoa(n))
			if err := writeSecret(from, e, s.Value); err != nil {
				return fmt.Errorf("secret %q: %w", e.Name, err)
			}
			config.Mounts = append(config.Mounts, container.Mount{Mount: pod.Mount{Target: e.File, ReadOnly: true}, From: from, File: true})
		}
		clear(s.Value)
	}
	a.secrets = nil
	return nil
}

func writeSecret(name string, e pod.Secret, value []byte) error {
	mode := uint64(0o444) // as docker has it: nobody else is in there
	if e.Mode != "" {
		var err error
		if mode, err = strconv.ParseUint(e.Mode, 8, 32); err != nil {
			return err
		}
	}
	if err := os.WriteFile(name, value, 0o600); err != nil {
		return err
	}
	if err := os.Chown(name, int(e.UID), int(e.GID)); err != nil {
		return err
	}
	return unix.Chmod(name, uint32(mode))
}
