package hostile

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/secrets"
	"github.com/kraudcloud/kattest/internal/channel"
)

// locked is a guest that waits for its secrets, as its owner knows it.
type locked struct {
	running
	key      []byte // to which secrets are sealed
	hostData [32]byte
}

func lockedGuest(t *testing.T, dir string) locked {
	t.Helper()
	g := locked{running: start(t, dir, "boot/as it is")}
	data, err := os.ReadFile(g.spec)
	if err != nil {
		t.Fatal(err)
	}
	g.hostData = pod.Digest(data)
	conn, err := channel.Dial(t.Context(), g.agent, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer, err := conn.Challenge(t.Context(), make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	e, err := evidence.Parse(answer)
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range e.Events {
		if event.Name == secrets.KeyEvent {
			if g.key, err = base64.StdEncoding.DecodeString(event.Value); err != nil {
				t.Fatal(err)
			}
		}
	}
	return g
}

// sealed are an owner's secrets for a guest.
func sealed(t *testing.T, g locked, owner crypto.Signer, all ...secrets.Secret) string {
	t.Helper()
	message, err := secrets.Seal(g.key, g.hostData, all, owner)
	if err != nil {
		t.Fatal(err)
	}
	return string(message)
}

// altered changes a member of a message.
func altered(t *testing.T, message, member string, change func([]byte) []byte) string {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal([]byte(message), &all); err != nil {
		t.Fatal(err)
	}
	value, err := base64.StdEncoding.DecodeString(all[member].(string))
	if err != nil {
		t.Fatal(err)
	}
	all[member] = change(value)
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func flipped(b []byte) []byte {
	b[len(b)/2] ^= 1
	return b
}

// TestSecrets hands a guest that waits what its owner did not mean for it. In the end
// it still waits, and its owner's own are taken, once.
func TestSecrets(t *testing.T) {
	t.Parallel()
	dir := summon(t, []string{"--owner", s.ownerPub, "--secret", "password", "--secret", "token,env=TOKEN"}, "serve", ":8080")
	g, same := lockedGuest(t, dir), lockedGuest(t, dir)
	owner, stranger := signer(t, s.owner), signer(t, s.other)
	password := secrets.Secret{Name: "password", Value: []byte("hunter2")}
	token := secrets.Secret{Name: "token", Value: []byte("1234567")}
	right := sealed(t, g, owner, password, token)
	by := func(message string) []byte {
		var m struct {
			Owner []byte `json:"owner"`
		}
		if err := json.Unmarshal([]byte(message), &m); err != nil {
			t.Fatal(err)
		}
		return m.Owner
	}
	elsewhere := g
	elsewhere.hostData = pod.Hash{1}
	for _, lie := range []struct{ name, message, want string }{
		{"nothing", "", "HTTP/1.1 400 "},
		{"not a message", "{}", "HTTP/1.1 400 "},
		{"a member twice", strings.Replace(right, "{", `{"owner":"",`, 1), "HTTP/1.1 400 "},
		{"a member unknown", strings.Replace(right, "{", `{"format":1,`, 1), "HTTP/1.1 400 "},
		{"too large", strings.Repeat(" ", secrets.MaxSize+1), "HTTP/1.1 413 "},
		{"not signed", altered(t, right, "signature", func([]byte) []byte { return nil }), "HTTP/1.1 403 "},
		{"a signature altered", altered(t, right, "signature", flipped), "HTTP/1.1 403 "},
		{"altered under the signature", altered(t, right, "sealed", flipped), "HTTP/1.1 403 "},
		{"for another key under the signature", altered(t, right, "recipient", flipped), "HTTP/1.1 403 "},
		{"by a key that is not named", sealed(t, g, stranger, password, token), "HTTP/1.1 403 "},
		{"by another in the owner's name", altered(t, sealed(t, g, stranger, password, token), "owner", func([]byte) []byte { return by(right) }), "HTTP/1.1 403 "},
		{"for another boot of it", sealed(t, same, owner, password, token), "HTTP/1.1 409 "},
		{"for another workload", sealed(t, elsewhere, owner, password, token), "HTTP/1.1 403 "},
		{"one missing", sealed(t, g, owner, password), "HTTP/1.1 422 "},
		{"one more", sealed(t, g, owner, password, token, secrets.Secret{Name: "more", Value: []byte("x")}), "HTTP/1.1 422 "},
		{"one by another name", sealed(t, g, owner, password, secrets.Secret{Name: "Token", Value: []byte("x")}), "HTTP/1.1 422 "},
		{"one that formats no volume", sealed(t, g, owner, password, secrets.Secret{Name: "token", Value: []byte("x"), Format: true}), "HTTP/1.1 422 "},
		{"the owner's", right, "HTTP/1.1 200 "}, // all before is its negative twin
		{"the owner's, replayed", right, "HTTP/1.1 409 "},
	} {
		t.Run(lie.name, func(t *testing.T) {
			got := exchange(t, g.agent, nil, post(secrets.Path, lie.message))
			if !strings.HasPrefix(got, lie.want) {
				t.Errorf("answer %.200q, want %q", got, lie.want)
			}
			for _, secret := range []secrets.Secret{password, token} {
				if strings.Contains(got, string(secret.Value)) {
					t.Errorf("the answer tells a secret: %q", got)
				}
			}
		})
	}
	// What was recorded does not open the other boot.
	if got := exchange(t, same.agent, nil, post(secrets.Path, right)); !strings.HasPrefix(got, "HTTP/1.1 409 ") {
		t.Errorf("answer %.200q", got)
	}
	run(t, kattest("attest", same.spec, same.agent)).want(t, 0, "SIMULATED VERIFIED")
}
