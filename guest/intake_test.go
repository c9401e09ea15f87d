package guest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/secrets"
)

// guarded is a spec that waits for one secret of an owner's.
func guarded(t *testing.T) (pod.Spec, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	spec := testSpec()
	spec.Secrets = &pod.Secrets{Owners: []pod.Hash{sha256.Sum256(der)}, Expects: []pod.Secret{{Name: "a", Env: "A"}}}
	return spec, private
}

func newTestIntake(t *testing.T, spec pod.Spec) (*intake, *eventLog) {
	t.Helper()
	events := &eventLog{}
	in, err := newIntake(spec, events, quiet())
	if err != nil {
		t.Fatal(err)
	}
	return in, events
}

func hand(t *testing.T, in *intake, message []byte) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, secrets.Path, bytes.NewReader(message))
	w := httptest.NewRecorder()
	in.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func sealed(t *testing.T, in *intake, owner ed25519.PrivateKey, all ...secrets.Secret) []byte {
	t.Helper()
	message, err := secrets.Seal(in.key.Public(), in.hostData, all, owner)
	if err != nil {
		t.Fatal(err)
	}
	return message
}

// Secrets are taken once, whole, and by an owner's hand.
func TestIntake(t *testing.T) {
	spec, owner := guarded(t)
	in, events := newTestIntake(t, spec)
	other, _ := newTestIntake(t, spec)
	_, stranger := guarded(t)
	a, b := secrets.Secret{Name: "a", Value: []byte("one")}, secrets.Secret{Name: "b", Value: []byte("two")}
	for _, tt := range []struct {
		name    string
		message []byte
		status  int
		text    string
	}{
		{"garbage", []byte("x"), 400, "not a message of secrets"},
		{"too long", make([]byte, secrets.MaxSize+1), 413, "more than"},
		{"a stranger's", sealed(t, in, stranger, a), 403, "not signed by an owner"},
		{"another guest's", sealed(t, other, owner, a), 409, "for another guest"},
		{"another name", sealed(t, in, owner, b), 422, `"a": missing`},
		{"one too many", sealed(t, in, owner, a, b), 422, `"b": the launch spec expects none`},
	} {
		if status, text := hand(t, in, tt.message); status != tt.status || !strings.Contains(text, tt.text) {
			t.Errorf("%s: %d %s", tt.name, status, text)
		}
	}
	if n := len(events.snapshot()); n != 1 {
		t.Errorf("%d events before anything was taken", n)
	}
	good := sealed(t, in, owner, a)
	if status, text := hand(t, in, good); status != 200 || text != "" {
		t.Fatal(status, text)
	}
	if status, text := hand(t, in, good); status != 409 || !strings.Contains(text, "has its secrets already") {
		t.Errorf("replayed: %d %s", status, text)
	}
	got, err := in.wait(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]secrets.Secret{"a": a}, got); diff != "" {
		t.Error(diff)
	}
	want := []evidence.Event{
		{Name: secrets.KeyEvent, Value: base64.StdEncoding.EncodeToString(in.key.Public())},
		{Name: eventOwner, Value: spec.Secrets.Owners[0].String()},
		{Name: eventSecret, Value: "a"},
	}
	if diff := cmp.Diff(want, events.snapshot()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	// A message that was taken at one boot is for no other.
	again, _ := newTestIntake(t, spec)
	if status, _ := hand(t, again, good); status != 409 {
		t.Errorf("at the next boot: %d", status)
	}
}

// The wait for secrets ends with the guest's.
func TestIntakeStops(t *testing.T) {
	spec, _ := guarded(t)
	in, _ := newTestIntake(t, spec)
	a := &agent{log: quiet(), spec: spec, keys: in, control: &control{stop: make(chan struct{}, 1)}}
	a.control.stop <- struct{}{}
	if err := a.takeSecrets(context.Background()); !errors.Is(err, errStopped) {
		t.Error(err)
	}
}
