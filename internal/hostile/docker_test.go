package hostile

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/internal/channel"
)

// clientOf is a certificate around a client's key.
func clientOf(t *testing.T, key crypto.Signer) *tls.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// api is a connection to docker's API in the guest.
func api(t *testing.T, g running, client *tls.Certificate) (net.Conn, error) {
	t.Helper()
	conn, err := channel.Dial(t.Context(), g.agent, client)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	return conn.Upgrade(t.Context(), port.DockerPath, port.DockerProtocol)
}

// said sends bytes over a connection to docker's API, and returns the answer: its
// status, and the beginning of its body.
func said(t *testing.T, g running, client *tls.Certificate, request []byte) string {
	t.Helper()
	conn, err := api(t, g, client)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	go func() { _, _ = conn.Write(request) }()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err.Error()
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	return resp.Status + " " + string(body)
}

func request(method, path string, body []byte) []byte {
	return fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
}

// packed is an archive of entries; a regular file holds its Linkname.
func packed(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = h.Linkname, ""
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestDocker asks for docker's API what a client must not have, as who must not have
// it, and in ways that are to wear the agent out. Each time the same without the lie
// is served, and in the end the guest is as it was.
func TestDocker(t *testing.T) {
	t.Parallel()
	dir := summon(t, []string{"--client", s.ownerPub, "--client", s.otherPub + "=ps,logs,exec"}, "serve", ":8080")
	g := start(t, dir, "boot/as it is")
	owner, other := clientOf(t, signer(t, s.owner)), clientOf(t, signer(t, s.other))
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	unknown := clientOf(t, private)
	list := request("GET", "/containers/json", nil)
	for deadline := time.Now().Add(time.Minute); !strings.Contains(said(t, g, owner, list), `"State":"running"`); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(said(t, g, owner, list))
		}
	}
	id := created(t, g, owner)

	file := func(name string) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: "x", Mode: 0o600}
	}
	link := func(kind byte, name, to string) tar.Header {
		return tar.Header{Typeflag: kind, Name: name, Linkname: to}
	}
	put := func(archive []byte) []byte { return request("PUT", "/containers/cradle/archive?path=/tmp", archive) }
	whole := packed(t, file("file"))
	for _, lie := range []struct {
		name    string
		client  *tls.Certificate
		request []byte
		want    string
	}{
		{"as it is", owner, list, `200 OK [{"Id"`},
		{"without a key", nil, list, "404"},
		{"with another key", unknown, list, "404"},
		{"a key that may do something else", other, put(whole), "403 Forbidden"},
		{"another's process", other, request("POST", "/exec/"+id+"/start", []byte("{}")), "404 Not Found"},
		{"its own process", owner, request("GET", "/exec/"+id+"/json", nil), "200 OK"},
		{"what it may not see", other, request("GET", "/containers/cradle/top", nil), "403 Forbidden"},
		{"end it", other, request("POST", "/containers/cradle/stop", nil), "403 Forbidden"},
		{"kill it", other, request("POST", "/containers/cradle/kill", nil), "403 Forbidden"},
		{"privileges", owner, request("POST", "/containers/cradle/exec", []byte(`{"Cmd":["/x"],"Privileged":true}`)), "400 Bad Request"},
		{"another container", owner, request("GET", "/containers/agent/json", nil), "404 Not Found"},
		{"a container of its own", owner, request("POST", "/containers/create", []byte(`{"Image":"x"}`)), "404 Not Found"},
		{"the agent's evidence by docker's API", owner, request("POST", "/v1/evidence", nil), "404 Not Found"},
		{"another version", owner, request("GET", "/v9.99/info", nil), "400 Bad Request"},
		{"a head that is too long", owner, []byte("GET /info HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n"), "431 "},
		{"a body that is too long", owner, request("POST", "/containers/cradle/exec", bytes.Repeat([]byte(" "), 65<<10)), "400 Bad Request"},
		{"not HTTP", owner, []byte("\x16\x03\x01\r\n\r\n"), "400 Bad Request"},
		{"two lengths", owner, []byte("POST /containers/cradle/exec HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), "400 Bad Request"},

		{"an archive", owner, put(whole), "200 OK"},
		{"an archive that is cut", owner, put(whole[:400]), "unexpected EOF"},
		{"no archive", owner, put(bytes.Repeat([]byte("junk"), 500)), "archive: entry 1"},
		{"upwards", owner, put(packed(t, file("../etc/x"))), `holds \"..\"`},
		{"absolute", owner, put(packed(t, file("/etc/x"))), "is absolute"},
		{"through a link of the archive's", owner, put(packed(t, link(tar.TypeSymlink, "l", "/etc"), file("l/x"))), "leads out of the folder"},
		{"through a link that stays", owner, put(packed(t, tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o700}, link(tar.TypeSymlink, "k", "d"), file("k/x"))), "200 OK"},
		{"a hard link outwards", owner, put(packed(t, link(tar.TypeLink, "h", "../etc/passwd"))), `holds \"..\"`},
		{"a hard link to what is absolute", owner, put(packed(t, link(tar.TypeLink, "h", "/etc/passwd"))), "is absolute"},
		{"a device", owner, put(packed(t, tar.Header{Typeflag: tar.TypeBlock, Name: "vda", Devmajor: 254, Mode: 0o666})), "a device node"},
		{"a path with a NUL", owner, request("GET", "/containers/cradle/archive?path=/etc%00", nil), "400 Bad Request"},
		{"the agent's memory by a path", owner, request("GET", "/containers/cradle/archive?path=/proc/1/root/../../dev/mem", nil), "404 Not Found"},
		{"the agent's devices", owner, request("GET", "/containers/cradle/archive?path=/dev/sev-guest", nil), "404 Not Found"},
		{"the agent's program", owner, request("GET", "/containers/cradle/archive?path=/init", nil), "404 Not Found"},
	} {
		if got := said(t, g, lie.client, lie.request); !strings.Contains(got, lie.want) {
			t.Errorf("%s: %q, want %s", lie.name, got, lie.want)
		}
	}

	wearOut(t, g, owner)
	if got := said(t, g, owner, list); !strings.Contains(got, `"State":"running"`) {
		t.Errorf("in the end the guest says %q", got)
	}
	run(t, kattest("attest", g.spec, g.agent)).want(t, 0, "SIMULATED VERIFIED")
}

// created is a process that a client may start.
func created(t *testing.T, g running, client *tls.Certificate) string {
	t.Helper()
	got := said(t, g, client, request("POST", "/containers/cradle/exec", []byte(`{"Cmd":["workload","flood"],"AttachStdout":true}`)))
	_, rest, _ := strings.Cut(got, `"Id":"`)
	id, _, ok := strings.Cut(rest, `"`)
	if !ok {
		t.Fatalf("no process is created: %s", got)
	}
	return id
}

// wearOut holds all that a client can hold: output that it does not read, a request
// that never ends, every place that clients have.
func wearOut(t *testing.T, g running, client *tls.Certificate) {
	t.Helper()
	hold := func(request []byte) {
		t.Helper()
		conn, err := api(t, g, client)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		hold(request("POST", "/exec/"+created(t, g, client)+"/start", []byte("{}"))) // 16 MiB that nobody reads
	}
	hold([]byte("GET /containers/cradle/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: a\r\n\r\n"))
	hold([]byte("GET /events HTTP/1.1\r\nHost: a\r\n\r\n"))
	hold([]byte("PUT /containers/cradle/archive?path=/tmp HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"))
	hold([]byte("GET /slow HTTP/1.1\r\nHost:"))
	full := ""
	for n := 0; n < 128 && full == ""; n++ {
		if _, err := api(t, g, client); err != nil {
			full = err.Error()
		}
	}
	if !strings.Contains(full, "503") {
		t.Errorf("with every place taken: %q", full)
	}
	run(t, kattest("attest", g.spec, g.agent)).want(t, 0, "SIMULATED VERIFIED") // strangers have places of their own
	// Silent connections end, and leave their places.
	for deadline := time.Now().Add(3 * time.Minute); strings.Contains(said(t, g, client, request("GET", "/_ping", nil)), "503"); time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			t.Fatal("the places are not left")
		}
	}
}
