package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	ociregistry "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
	"github.com/kraudcloud/kattest/measure/release/registry"
	"github.com/kraudcloud/kattest/measure/stack"
)

const kind = "https://example.com/kind/v1"

// serve serves a registry behind change, which may answer in its place, and returns
// the reference of a stack that is not there yet.
func serve(t *testing.T, referrers bool, change func(w http.ResponseWriter, req *http.Request, next http.Handler)) string {
	t.Helper()
	next := ociregistry.New(ociregistry.WithReferrersSupport(referrers), ociregistry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { change(w, req, next) }))
	t.Cleanup(server.Close)
	return registry.Scheme + strings.TrimPrefix(server.URL, "http://") + "/boot/stack:v1"
}

func asItIs(w http.ResponseWriter, req *http.Request, next http.Handler) { next.ServeHTTP(w, req) }

func writeStack(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "stack")
	if err := clitest.WriteStack(dir, "quiet"); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A stack and its bundles come back, from registries of either kind, and the
// second time nothing changes.
func TestPublished(t *testing.T) {
	for _, referrers := range []bool{true, false} {
		t.Run(fmt.Sprintf("referrers API %v", referrers), func(t *testing.T) {
			var c registry.Client
			to, dir := serve(t, referrers, asItIs), writeStack(t)
			var names []string
			for range 2 {
				subject, err := c.PushStack(t.Context(), to, dir)
				if err != nil {
					t.Fatal(err)
				}
				first, err := c.Attach(t.Context(), subject, []byte("one"), kind)
				if err != nil {
					t.Fatal(err)
				}
				second, err := c.Attach(t.Context(), to, []byte("two"), kind)
				if err != nil {
					t.Fatal(err)
				}
				other, err := c.Attach(t.Context(), to, []byte("three"), kind+"/other")
				if err != nil {
					t.Fatal(err)
				}
				all := []string{subject, first, second, other}
				if names != nil && !cmp.Equal(names, all) {
					t.Errorf("the second time %v, not %v", all, names)
				}
				names = all
			}
			for _, from := range []string{to, names[0]} {
				bundles, err := c.Bundles(t.Context(), from, kind)
				if err != nil {
					t.Fatal(err)
				}
				got := map[string]string{}
				for _, b := range bundles {
					got[b.Name] = string(b.Data)
				}
				if diff := cmp.Diff(map[string]string{names[1]: "one", names[2]: "two"}, got); diff != "" {
					t.Errorf("bundles of %s (-want +got):\n%s", from, diff)
				}
			}
			layers(t, names[0], dir)
		})
	}
}

// layers compares the layers of what was pushed with the files.
func layers(t *testing.T, pushed, dir string) {
	t.Helper()
	ref, err := name.NewDigest(strings.TrimPrefix(pushed, registry.Scheme))
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Get(ref)
	if err != nil {
		t.Fatal(err)
	}
	var m v1.Manifest
	if err := json.Unmarshal(got.Manifest, &m); err != nil {
		t.Fatal(err)
	}
	if m.ArtifactType != stack.MediaType || len(m.Layers) != 4 || m.Layers[0].MediaType != stack.MediaType {
		t.Errorf("manifest: %s", got.Manifest)
	}
	for _, l := range m.Layers {
		layer, err := remote.Layer(ref.Context().Digest(l.Digest.String()))
		if err != nil {
			t.Fatal(err)
		}
		r, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(dir, l.Annotations["org.opencontainers.image.title"]))
		if err != nil || !bytes.Equal(data, want) {
			t.Errorf("%v: %d bytes, want %d, %v", l.Annotations, len(data), len(want), err)
		}
	}
}

func TestReferences(t *testing.T) {
	for s, want := range map[string]string{
		"host.example/repo:tag":             "does not begin with oci://",
		"oci://host.example/repo":           "has neither a tag nor a digest",
		"oci://repo:tag":                    "does not name a registry's host",
		"oci://host.example/REPO:tag":       "could not parse reference",
		"oci://host.example/repo@sha256:12": "could not parse reference",
		"oci://":                            "",
		"oci://host.example/repo:" + strings.Repeat("a", 200): "could not parse reference",
	} {
		_, err := registry.Client{}.Bundles(t.Context(), s, kind)
		if _, asked := errors.AsType[*registry.Error](err); err == nil || asked || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", s, err, want)
		}
	}
}

// A hostile registry, or a broken one. It hides and lies; nothing that it says
// goes through.
func TestHostileRegistry(t *testing.T) {
	index := func(w http.ResponseWriter, body string) {
		w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
		fmt.Fprint(w, body)
	}
	for _, tt := range []struct {
		name    string
		part    string // of the address, for which answer is asked
		answer  func(w http.ResponseWriter, req *http.Request, next http.Handler)
		err     string
		missing bool
	}{
		{"no such stack", "/manifests/v1", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { http.Error(w, "{}", http.StatusNotFound) }, "404", true},
		{"no credentials", "/manifests/v1", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			http.Error(w, "{}", http.StatusUnauthorized)
		}, "401", false},
		{"refuses", "/referrers/", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			http.Error(w, "{}", http.StatusForbidden)
		}, "403", false},
		{"hides all", "/referrers/", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			index(w, `{"schemaVersion":2,"manifests":[]}`)
		}, "has no bundle of type " + kind, true},
		{"no JSON", "/referrers/", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { index(w, `{"manifests":`) }, "unexpected EOF", false},
		{"endless", "/referrers/", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			index(w, `{"manifests":[`)
			for {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<16)); err != nil {
					return
				}
			}
		}, "", false},
		{"too many", "/referrers/", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			one := `{"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json","digest":"sha256:` + strings.Repeat("0a", 32) + `","size":1}`
			index(w, `{"schemaVersion":2,"manifests":[`+strings.TrimSuffix(strings.Repeat(one+",", 65), ",")+`]}`)
		}, "has 65 bundles, more than 64", false},
		{"redirects in a circle", "/referrers/", func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
			http.Redirect(w, req, req.URL.String(), http.StatusTemporaryRedirect)
		}, "it takes more than 1024 requests", false},
		{"another manifest", "/manifests/sha256:", func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			rewrite(w, req, next, func(b []byte) []byte { return bytes.Replace(b, []byte("dsse-envelope"), []byte("dsse-Envelope"), 1) })
		}, "digest", false},
		{"another bundle", "/blobs/", func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			rewrite(w, req, next, func(b []byte) []byte { return bytes.ToUpper(b) })
		}, "sha256", false},
		{"a bundle cut off", "/blobs/", func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			rewrite(w, req, next, func(b []byte) []byte { return b[:1] })
		}, "sha256", false},
		{"asks for patience", "/referrers/", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Retry-After", "3600")
			http.Error(w, "{}", http.StatusTooManyRequests)
		}, "429", false},
		{"broken", "/referrers/", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			http.Error(w, "{}", http.StatusInternalServerError)
		}, "500", false},
		{"overloaded", "/blobs/", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			http.Error(w, "<html>", http.StatusServiceUnavailable)
		}, "503", false},
		{"gone", "/blobs/", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { http.Error(w, "{}", http.StatusGone) }, "410", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // some wait
			var c registry.Client
			hostile := false
			from := serve(t, true, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if hostile && strings.Contains(req.URL.Path, tt.part) {
					tt.answer(w, req, next)
					return
				}
				next.ServeHTTP(w, req)
			})
			if _, err := c.PushStack(t.Context(), from, writeStack(t)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Attach(t.Context(), from, []byte("bundle"), kind); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Bundles(t.Context(), from, kind); err != nil {
				t.Fatalf("before it turned hostile: %v", err)
			}
			hostile = true
			bundles, err := c.Bundles(t.Context(), from, kind)
			failed, ok := errors.AsType[*registry.Error](err)
			if !ok || bundles != nil || !strings.Contains(err.Error(), tt.err) || !strings.HasPrefix(err.Error(), from) {
				t.Fatalf("%v, error %v, want one with %q", bundles, err, tt.err)
			}
			if failed.Missing() != tt.missing {
				t.Errorf("missing: %v", failed.Missing())
			}
		})
	}
}

// An outage that passes is none.
func TestPassingOutage(t *testing.T) {
	var c registry.Client
	failures := 1
	from := serve(t, true, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if strings.Contains(req.URL.Path, "/referrers/") && failures > 0 {
			failures--
			http.Error(w, "{}", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, req)
	})
	if _, err := c.PushStack(t.Context(), from, writeStack(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Attach(t.Context(), from, []byte("bundle"), kind); err != nil {
		t.Fatal(err)
	}
	bundles, err := c.Bundles(t.Context(), from, kind)
	if err != nil || len(bundles) != 1 || failures != 0 {
		t.Errorf("%d bundles, %v", len(bundles), err)
	}
}

// rewrite changes the body of an answer and keeps the rest.
func rewrite(w http.ResponseWriter, req *http.Request, next http.Handler, change func([]byte) []byte) {
	if req.Method != http.MethodGet {
		next.ServeHTTP(w, req)
		return
	}
	r := httptest.NewRecorder()
	next.ServeHTTP(r, req)
	body := change(r.Body.Bytes())
	for key, values := range r.Header() {
		w.Header()[key] = values
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(r.Code)
	if _, err := w.Write(body); err != nil {
		log.Print(err)
	}
}

// Referrers that are no bundles of ours, of another subject, with several layers, with
// one that is too large, are passed over.
func TestForeignReferrers(t *testing.T) {
	for what, change := range map[string]func(m *v1.Manifest){
		"refers to something else": func(m *v1.Manifest) { m.Subject.Digest.Hex = strings.Repeat("0b", 32) },
		"layers: 2, want 1":        func(m *v1.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) },
		"layers: 0, want 1":        func(m *v1.Manifest) { m.Layers = nil },
		"more than 8388608":        func(m *v1.Manifest) { m.Layers[0].Size = 1 << 40 },
		"the manifest says 5":      func(m *v1.Manifest) { m.Layers[0].Size = 5 },
	} {
		t.Run(what, func(t *testing.T) {
			var c registry.Client
			var put, digest, good string
			from := serve(t, true, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if put != "" && strings.Contains(req.URL.Path, "/referrers/") {
					w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
					fmt.Fprintf(w, `{"schemaVersion":2,"manifests":[{"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json","digest":%q,"size":%d}%s]}`, digest, len(put), good)
					return
				}
				if put != "" && strings.HasSuffix(req.URL.Path, "/manifests/"+digest) {
					w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
					fmt.Fprint(w, put)
					return
				}
				next.ServeHTTP(w, req)
			})
			if _, err := c.PushStack(t.Context(), from, writeStack(t)); err != nil {
				t.Fatal(err)
			}
			attached, err := c.Attach(t.Context(), from, []byte("bundle"), kind)
			if err != nil {
				t.Fatal(err)
			}
			ref, err := name.NewDigest(strings.TrimPrefix(attached, registry.Scheme))
			if err != nil {
				t.Fatal(err)
			}
			got, err := remote.Get(ref)
			if err != nil {
				t.Fatal(err)
			}
			var m v1.Manifest
			if err := json.Unmarshal(got.Manifest, &m); err != nil {
				t.Fatal(err)
			}
			change(&m)
			data, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			h, _, err := v1.SHA256(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			put, digest = string(data), h.String()
			// It is in nobody's way.
			good = fmt.Sprintf(`,{"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json","digest":%q,"size":1}`, ref.DigestStr())
			if bundles, err := c.Bundles(t.Context(), from, kind); err != nil || len(bundles) != 1 || bundles[0].Name != attached {
				t.Errorf("beside a good one: %v, error %v", bundles, err)
			}
			good = ""
			if bundles, err := c.Bundles(t.Context(), from, kind); err == nil || bundles != nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), digest) {
				t.Errorf("%v, error %v", bundles, err)
			}
		})
	}
}

func TestAttachRefuses(t *testing.T) {
	var c registry.Client
	to := serve(t, true, asItIs)
	_, err := c.Attach(t.Context(), to, []byte("bundle"), kind)
	if failed, ok := errors.AsType[*registry.Error](err); !ok || !failed.Missing() {
		t.Errorf("to nothing: %v", err)
	}
	dir := writeStack(t)
	if err := os.Truncate(filepath.Join(dir, stack.Kernel), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PushStack(t.Context(), to, dir); err == nil || !strings.Contains(err.Error(), stack.Kernel) {
		t.Errorf("an altered stack: %v", err)
	}
	digest := strings.TrimSuffix(to, ":v1") + "@sha256:" + strings.Repeat("0a", 32)
	if _, err := c.PushStack(t.Context(), digest, writeStack(t)); err == nil || !strings.Contains(err.Error(), "is sha256:") {
		t.Errorf("under another stack's digest: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Bundles(ctx, to, kind); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
