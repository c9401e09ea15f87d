package collateral_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/verifier"
	"github.com/kraudcloud/kattest/verifier/collateral"
	"github.com/kraudcloud/kattest/verifier/collateral/fakekds"
)

// corpus holds genuine certificates beside this repository. It is no part of it.
const corpus = "../../../shared/corpus"

// genuine returns a bundle of the corpus's VCEKs, chains and newest lists.
func genuine(t testing.TB) *collateral.Bundle {
	t.Helper()
	var b collateral.Bundle
	add := func(pattern string, add func([]byte) error) {
		names, err := filepath.Glob(filepath.Join(corpus, pattern))
		if err != nil {
			t.Fatal(err)
		}
		if len(names) == 0 {
			t.Skipf("%s is not there: genuine certificates are kept outside of the repository", filepath.Join(corpus, pattern))
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := add(data); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	add("reports/*.vcek.der", b.AddVCEK)
	add("amd/chain_*.pem", b.AddChain)
	add("amd/*.crl", b.AddCRL)
	return &b
}

// key is one of the corpus's VCEKs.
func key(t testing.TB, product verifier.Product) (der []byte, e verifier.Endorsement) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(corpus, "reports/*.vcek.der"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if der, err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
		if e, err = verifier.ParseEndorsement(der); err != nil {
			t.Fatal(err)
		}
		if e.Product == product {
			return der, e
		}
	}
	t.Skipf("no VCEK of a %v in %s", product, corpus)
	return nil, e
}

// serve returns a fake service, and a client of it that does not wait and says how
// long it would have.
func serve(t testing.TB, options ...collateral.Option) (*fakekds.Server, *collateral.KDS, *[]time.Duration) {
	t.Helper()
	fake := fakekds.New(genuine(t))
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	var waits []time.Duration
	note := collateral.WithSleep(func(ctx context.Context, d time.Duration) error {
		waits = append(waits, d)
		return ctx.Err()
	})
	return fake, collateral.NewKDS(server.URL, append([]collateral.Option{note}, options...)...), &waits
}

func TestKDS(t *testing.T) {
	_, kds, _ := serve(t)
	for _, p := range verifier.Products() {
		der, e := key(t, p)
		got, err := kds.VCEK(t.Context(), p, e.HWID, e.TCB)
		if err != nil || !bytes.Equal(got, der) {
			t.Errorf("%v: VCEK: %d bytes, %v", p, len(got), err)
		}
		if _, err := kds.VCEK(t.Context(), p, e.HWID, verifier.TCB{SNP: 1}); !errors.Is(err, verifier.ErrNotFound) {
			t.Errorf("%v: VCEK of another TCB: %v", p, err)
		}
		for _, k := range []verifier.SigningKey{verifier.VCEK, verifier.VLEK} {
			if pem, err := kds.Chain(t.Context(), p, k); err != nil || !bytes.HasPrefix(pem, []byte("-----BEGIN")) {
				t.Errorf("%v: chain of the %v: %v", p, k, err)
			}
		}
	}
	if _, err := kds.CRL(t.Context(), verifier.Genoa, verifier.VLEK); err != nil {
		t.Error(err)
	}
	if _, err := kds.CRL(t.Context(), verifier.Turin, verifier.VCEK); !errors.Is(err, verifier.ErrNotFound) {
		t.Errorf("a list that is not there: %v", err)
	}
}

// The addresses, as AMD's service has them.
func TestAddresses(t *testing.T) {
	fake, kds, _ := serve(t)
	hwid := bytes.Repeat([]byte{0xab}, 8)
	_, _ = kds.VCEK(t.Context(), verifier.Milan, slices.Repeat(hwid, 8), verifier.TCB{Bootloader: 4, SNP: 24, Microcode: 219})
	_, _ = kds.VCEK(t.Context(), verifier.Turin, hwid, verifier.TCB{FMC: 1, Bootloader: 2, TEE: 3, SNP: 4, Microcode: 5})
	_, _ = kds.Chain(t.Context(), verifier.Genoa, verifier.VLEK)
	_, _ = kds.CRL(t.Context(), verifier.Genoa, verifier.VCEK)
	want := []string{
		"/vcek/v1/Milan/" + strings.Repeat("ab", 64) + "?blSPL=4&teeSPL=0&snpSPL=24&ucodeSPL=219",
		"/vcek/v1/Turin/" + strings.Repeat("ab", 8) + "?fmcSPL=1&blSPL=2&teeSPL=3&snpSPL=4&ucodeSPL=5",
		"/vlek/v1/Genoa/cert_chain",
		"/vcek/v1/Genoa/crl",
	}
	if diff := cmp.Diff(want, fake.Requests()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestFaults(t *testing.T) {
	short := collateral.WithClient(&http.Client{Timeout: 200 * time.Millisecond})
	for _, tt := range []struct {
		name   string
		faults []fakekds.Fault
		asked  int
		err    string
	}{
		{"none", nil, 1, ""},
		{"busy twice", []fakekds.Fault{fakekds.TooMany, fakekds.TooMany}, 3, ""},
		{"busy for good", slices.Repeat([]fakekds.Fault{fakekds.TooMany}, 9), 5, "429 Too Many Requests (5 attempts)"},
		{"out of order", []fakekds.Fault{fakekds.Unavailable}, 2, ""},
		{"silent", []fakekds.Fault{fakekds.Silent}, 2, ""},
		{"cut off", []fakekds.Fault{fakekds.Cut}, 2, ""},
		{"garbage", []fakekds.Fault{fakekds.Garbage}, 1, "no VCEK's certificate"},
		{"redirect", []fakekds.Fault{fakekds.Redirect}, 1, "302 Found"},
		{"endless", []fakekds.Fault{fakekds.Endless}, 1, "more than 16384 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fake, kds, waits := serve(t, short)
			fake.Fail(tt.faults...)
			_, e := key(t, verifier.Milan)
			_, err := kds.VCEK(t.Context(), e.Product, e.HWID, e.TCB)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if err != nil && errors.Is(err, verifier.ErrNotFound) {
				t.Errorf("%v says that it will never be there", err)
			}
			if n := len(fake.Requests()); n != tt.asked || len(*waits) != n-1 {
				t.Errorf("asked %d times, want %d; waited %v", n, tt.asked, *waits)
			}
			for i, wait := range *waits {
				if most := time.Second << i; wait > most || wait <= 0 {
					t.Errorf("pause %d: %v, want at most %v", i, wait, most)
				}
			}
		})
	}
}

func TestContextEndsAsking(t *testing.T) {
	fake, kds, _ := serve(t)
	fake.Fail(fakekds.Silent)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := kds.CRL(ctx, verifier.Milan, verifier.VCEK); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if n := len(fake.Requests()); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// A service that answers with another chip's certificate gets nowhere.
func TestAnothersCertificate(t *testing.T) {
	der, _ := key(t, verifier.Genoa)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(der) }))
	defer server.Close()
	_, e := key(t, verifier.Milan)
	if _, err := collateral.NewKDS(server.URL).VCEK(t.Context(), e.Product, e.HWID, e.TCB); err == nil || !strings.Contains(err.Error(), "another key's") {
		t.Errorf("error %v", err)
	}
}

func TestCache(t *testing.T) {
	fake, kds, _ := serve(t, collateral.WithAttempts(1))
	dir, now := t.TempDir(), time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)
	var warned []error
	cache := &collateral.Cache{Dir: dir, Next: kds, Now: func() time.Time { return now }, Warn: func(err error) { warned = append(warned, err) }}
	der, e := key(t, verifier.Milan)
	vcek := func() error {
		got, err := cache.VCEK(t.Context(), e.Product, e.HWID, e.TCB)
		if err == nil && !bytes.Equal(got, der) {
			t.Error("another certificate")
		}
		return err
	}
	crl := func() error { _, err := cache.CRL(t.Context(), verifier.Milan, verifier.VCEK); return err }
	asked := func(what string, n int, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := len(fake.Requests()); got != n {
			t.Errorf("%s: asked %d times in all, want %d", what, got, n)
		}
	}
	touch := func() { // files are as old as the cache's clock says
		names, _ := filepath.Glob(filepath.Join(dir, "v1", "*"))
		for _, name := range names {
			if err := os.Chtimes(name, now, now); err != nil {
				t.Fatal(err)
			}
		}
	}
	asked("first", 1, vcek())
	asked("second", 1, vcek())
	asked("list", 2, crl())
	touch()
	asked("list, kept", 2, crl())
	now = now.Add(25 * time.Hour)
	asked("list, a day later", 3, crl())
	touch()
	now = now.Add(25 * time.Hour)
	fake.Fail(fakekds.Unavailable)
	asked("list, without an answer", 4, crl())
	asked("certificate, for good", 4, vcek())

	names, _ := filepath.Glob(filepath.Join(dir, "v1", "*"))
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)-1] ^= 1
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	asked("damaged", 5, vcek())
	asked("mended", 5, vcek())
	if len(warned) > 0 {
		t.Error(warned)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "v1", ".new-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	offline := &collateral.Cache{Dir: dir, Now: cache.Now}
	if _, err := offline.VCEK(t.Context(), e.Product, e.HWID, e.TCB); err != nil {
		t.Error(err)
	}
	if _, err := offline.Chain(t.Context(), verifier.Turin, verifier.VCEK); !errors.Is(err, verifier.ErrNotFound) {
		t.Error(err)
	}
}

// A cache that cannot be written still hands out what it is answered.
func TestCacheThatCannotKeep(t *testing.T) {
	_, kds, _ := serve(t)
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	warned := 0
	cache := &collateral.Cache{Dir: dir, Next: kds, Warn: func(error) { warned++ }}
	if _, err := cache.CRL(t.Context(), verifier.Milan, verifier.VCEK); err != nil || warned != 1 {
		t.Errorf("error %v, %d warnings", err, warned)
	}
}

func TestBundle(t *testing.T) {
	b := genuine(t)
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := collateral.ParseBundle(data)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := again.Marshal(); err != nil || !bytes.Equal(second, data) {
		t.Errorf("other bytes for the same collateral: %v", err)
	}
	der, e := key(t, verifier.Turin)
	if got, err := again.VCEK(t.Context(), e.Product, e.HWID, e.TCB); err != nil || !bytes.Equal(got, der) {
		t.Error(err)
	}
	if _, err := again.CRL(t.Context(), verifier.Milan, verifier.VLEK); err != nil {
		t.Error(err)
	}
	newest, err := os.ReadFile(filepath.Join(corpus, "amd/crl_53a61dc059e5.crl"))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := again.CRL(t.Context(), verifier.Milan, verifier.VCEK); !bytes.Equal(got, newest) {
		t.Error("not the newest list")
	}
	folder, err := collateral.Open(filepath.Join(corpus, "amd"))
	if err == nil || !strings.Contains(err.Error(), "revoked_ask_genoa_020001.der: neither") {
		t.Errorf("a folder with something else in it: %v, %v", folder, err)
	}
}

func TestParseBundleRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ data, err string }{
		"no JSON":      {"x", "invalid character"},
		"another":      {`{"mediaType":"x","chains":[],"crls":[],"vceks":[]}`, "mediaType"},
		"unknown":      {`{"mediaType":"` + collateral.MediaType + `","x":1}`, `unknown member "x"`},
		"no VCEK":      {`{"mediaType":"` + collateral.MediaType + `","chains":[],"crls":[],"vceks":["AAAA"]}`, "vceks[0]"},
		"no list":      {`{"mediaType":"` + collateral.MediaType + `","chains":[],"crls":["AAAA"],"vceks":[]}`, "crls[0]"},
		"no chain":     {`{"mediaType":"` + collateral.MediaType + `","chains":["x"],"crls":[],"vceks":[]}`, "chains[0]"},
		"many chains":  {`{"mediaType":"` + collateral.MediaType + `","chains":[` + strings.Repeat(`"",`, 64) + `""],"crls":[],"vceks":[]}`, "65 chains"},
		"twice itself": {`{"mediaType":"a","mediaType":"b"}`, "stands twice"},
	} {
		t.Run(name, func(t *testing.T) {
			if b, err := collateral.ParseBundle([]byte(tt.data)); err == nil || b != nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v, error %v, want %q", b, err, tt.err)
			}
		})
	}
}

func FuzzParseBundle(f *testing.F) {
	f.Add([]byte(`{"mediaType":"` + collateral.MediaType + `","chains":[],"crls":[],"vceks":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := collateral.ParseBundle(data)
		if err != nil {
			if b != nil {
				t.Error("an error with a bundle")
			}
			return
		}
		again, err := b.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := collateral.ParseBundle(again); err != nil {
			t.Errorf("does not read what it wrote: %v", err)
		}
	})
}

// A Source of several takes the first answer, and tells of what may yet be had.
func TestSources(t *testing.T) {
	fake, kds, _ := serve(t, collateral.WithAttempts(1))
	all := collateral.Sources{&collateral.Bundle{}, kds}
	if _, err := all.CRL(t.Context(), verifier.Milan, verifier.VCEK); err != nil {
		t.Error(err)
	}
	fake.Fail(fakekds.TooMany)
	if _, err := all.CRL(t.Context(), verifier.Milan, verifier.VCEK); err == nil || errors.Is(err, verifier.ErrNotFound) {
		t.Errorf("busy: %v", err)
	}
	if _, err := all.CRL(t.Context(), verifier.Turin, verifier.VCEK); !errors.Is(err, verifier.ErrNotFound) {
		t.Errorf("nowhere: %v", err)
	}
	if _, err := (collateral.Sources{}).CRL(t.Context(), verifier.Milan, verifier.VCEK); !errors.Is(err, verifier.ErrNotFound) {
		t.Errorf("no source: %v", err)
	}
}
