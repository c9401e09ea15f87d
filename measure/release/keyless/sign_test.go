package keyless

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/internal/fakesigstore"
	"github.com/kraudcloud/kattest/measure/release"
)

var by = fakesigstore.Signing{Subject: subject, Issuer: issuer}

// serve starts a sigstore, with a log of that version.
func serve(t testing.TB, server *fakesigstore.Server, version uint32) Services {
	t.Helper()
	listener := httptest.NewServer(server)
	t.Cleanup(listener.Close)
	config, err := fakesigstore.SigningConfig(listener.URL, version)
	if err != nil {
		t.Fatal(err)
	}
	services, err := ParseSigningConfig(config, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return services
}

func good(t testing.TB) Token {
	t.Helper()
	token, err := ParseToken([]byte(fakesigstore.IdentityToken(by, time.Now().Add(time.Minute)) + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestSign(t *testing.T) {
	a, trusted := authority(t)
	for _, version := range []uint32{1, 2} {
		services := serve(t, &fakesigstore.Server{Authority: a}, version)
		b, err := Sign(t.Context(), statement, good(t), services, trusted)
		if err != nil {
			t.Fatal(err)
		}
		got, who, err := Verify(b, trusted, exact)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(statement), string(got)); diff != "" || who.Subject != subject || who.Issuer != issuer {
			t.Errorf("%v: %s", who, diff)
		}
		parts := material(parse(t, b))
		if len(parts["tlogEntries"].([]any)) != 1 || len(parts["timestampVerificationData"].(map[string]any)["rfc3161Timestamps"].([]any)) != 1 || parts["certificate"] == nil {
			t.Errorf("log of version %d: %v", version, parts)
		}
		if _, _, err := Verify(b, trusted, release.Identity{Subject: subject + "/x", Issuer: issuer}); !errors.Is(err, release.ErrSignature) {
			t.Errorf("another identity: %v", err)
		}
		untold, err := Sign(t.Context(), statement, good(t), services, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := Verify(untold, trusted, exact); err != nil {
			t.Errorf("without a trusted root: %v", err)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	a, trusted := authority(t)
	_, stranger := authority(t)
	expired := Token(fakesigstore.IdentityToken(by, time.Now().Add(-time.Second)))
	foreign := Token(strings.Replace(string(good(t)), ".", ".e30", 1))
	for _, tt := range []struct {
		name    string
		server  fakesigstore.Server
		version uint32
		token   Token
		root    any // trusted where nil
		want    error
		text    string
	}{
		{"token expired", fakesigstore.Server{}, 1, expired, nil, ErrToken, "it expired at"},
		{"token refused", fakesigstore.Server{}, 1, foreign, nil, ErrToken, ""},
		{"no token", fakesigstore.Server{}, 1, "", nil, ErrToken, "1 parts"},
		{"another key certified", fakesigstore.Server{OtherKey: true}, 1, "", "good", release.ErrSignature, "certified another key"},
		{"authority down", fakesigstore.Server{Down: fakesigstore.PathCertificate}, 1, "", "good", ErrUnavailable, "certificate authority: Post"},
		{"authority's garbage", fakesigstore.Server{Garbage: fakesigstore.PathCertificate}, 1, "", "good", ErrUnavailable, "certificate authority"},
		{"authority's flood", fakesigstore.Server{Oversized: fakesigstore.PathCertificate}, 1, "", "good", ErrUnavailable, "more than 10485760 bytes"},
		{"stamps down", fakesigstore.Server{Down: fakesigstore.PathTimestamp}, 1, "", "good", ErrUnavailable, "503 Service Unavailable"},
		{"stamps' garbage", fakesigstore.Server{Garbage: fakesigstore.PathTimestamp}, 1, "", "good", ErrUnavailable, "time stamping authority"},
		{"stamps' flood", fakesigstore.Server{Oversized: fakesigstore.PathTimestamp}, 1, "", "good", ErrUnavailable, "more than 10485760 bytes"},
		{"another stamped", fakesigstore.Server{OtherStamp: true}, 2, "", "good", release.ErrSignature, "timestamp"},
		{"log down", fakesigstore.Server{Down: fakesigstore.PathLog}, 1, "", "good", ErrUnavailable, "503 Service Unavailable"},
		{"log's garbage", fakesigstore.Server{Garbage: fakesigstore.PathLog}, 1, "", "good", ErrUnavailable, "its answer is no entry"},
		{"log's flood", fakesigstore.Server{Oversized: fakesigstore.PathLog}, 1, "", "good", ErrUnavailable, "more than 10485760 bytes"},
		{"log 2 down", fakesigstore.Server{Down: fakesigstore.PathLogV2}, 2, "", "good", ErrUnavailable, "503"},
		{"log 2's garbage", fakesigstore.Server{Garbage: fakesigstore.PathLogV2}, 2, "", "good", ErrUnavailable, "makes no bundle"},
		{"log 2's flood", fakesigstore.Server{Oversized: fakesigstore.PathLogV2}, 2, "", "good", ErrUnavailable, "unmarshaling"},
		{"another sigstore", fakesigstore.Server{}, 1, "", "stranger", release.ErrSignature, "by the trusted root"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.server.Authority = a
			token, root := tt.token, trusted
			if tt.root != nil {
				token = good(t)
			}
			if tt.root == "stranger" {
				root = stranger
			}
			b, err := Sign(t.Context(), statement, token, serve(t, &tt.server, tt.version), root)
			if b != nil || !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%q, %v", b, err)
			}
			for _, other := range []error{ErrToken, ErrUnavailable, release.ErrSignature} {
				if other != tt.want && errors.Is(err, other) { //nolint:errorlint // which of the three
					t.Errorf("%v is %v too", err, other)
				}
			}
			if token != "" && strings.Contains(err.Error(), string(token)) {
				t.Errorf("the token is shown: %v", err)
			}
		})
	}
}

// What a service gives is checked even where no trusted root is given.
func TestSignUntold(t *testing.T) {
	a, _ := authority(t)
	for _, server := range []fakesigstore.Server{{OtherKey: true}, {Garbage: fakesigstore.PathLog}, {Garbage: fakesigstore.PathTimestamp}} {
		server.Authority = a
		if b, err := Sign(t.Context(), statement, good(t), serve(t, &server, 1), nil); err == nil || b != nil {
			t.Errorf("%+v: signed", server)
		}
	}
}

// A service that never answers holds nobody who has been told to stop.
func TestSignStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stop := make(chan struct{})
	listener := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { cancel(); <-stop }))
	defer listener.Close()
	defer close(stop)
	config, err := fakesigstore.SigningConfig(listener.URL, 1)
	if err != nil {
		t.Fatal(err)
	}
	services, err := ParseSigningConfig(config, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(ctx, statement, good(t), services, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A token goes nowhere where it can be read, not even by a redirect.
func TestRedirect(t *testing.T) {
	listener := httptest.NewServer(http.RedirectHandler("http://192.0.2.1/", http.StatusTemporaryRedirect))
	defer listener.Close()
	_, err := GitHubToken(t.Context(), listener.URL+"/token", "secret")
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "want https") {
		t.Error(err)
	}
}

func TestSigningConfig(t *testing.T) {
	text, err := fakesigstore.SigningConfig("http://127.0.0.1:1", 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseSigningConfig(text, time.Now()); err != nil {
		t.Fatal(err)
	}
	edited := func(edit func(tree map[string]any)) string { return string(change(t, text, edit)) }
	without := func(name string) string { return edited(func(tree map[string]any) { delete(tree, name) }) }
	for name, tt := range map[string]struct{ text, want string }{
		"nothing":        {"", "syntax error"},
		"no object":      {"null", ""},
		"another type":   {without("mediaType"), "unsupported SigningConfig media type"},
		"no authority":   {without("caUrls"), "caUrls: no matching service"},
		"no log":         {without("rekorTlogUrls"), "rekorTlogUrls: no matching service"},
		"no selector":    {without("rekorTlogConfig"), "rekorTlogConfig, tsaConfig: missing"},
		"nor for stamps": {without("tsaConfig"), "rekorTlogConfig, tsaConfig: missing"},
		"no time":        {without("tsaUrls"), "logs of version 2 tell no time"},
		"unknown member": {edited(func(tree map[string]any) { tree["x"] = 1 }), "unknown field"},
		"open address":   {strings.ReplaceAll(string(text), "127.0.0.1", "192.0.2.1"), "want https"},
		"local name":     {strings.ReplaceAll(string(text), "127.0.0.1", "localhost"), "want https"},
		"another scheme": {strings.ReplaceAll(string(text), "http:", "file:"), "want https"},
		"too large":      {strings.Repeat(" ", MaxSigningConfig+1), "more than"},
	} {
		if s, err := ParseSigningConfig([]byte(tt.text), time.Now()); err == nil || !strings.Contains(err.Error(), tt.want) || s.authority.URL != "" || s.logs != nil {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	if _, err := ParseSigningConfig(text, time.Now().Add(-2*time.Hour)); err == nil {
		t.Error("services of later")
	}
}

func TestGitHubToken(t *testing.T) {
	a, _ := authority(t)
	listener := httptest.NewServer(&fakesigstore.Server{Authority: a})
	defer listener.Close()
	address := listener.URL + fakesigstore.PathToken + "?subject=https://forge.example/a&issuer=" + issuer
	token, err := GitHubToken(t.Context(), address, fakesigstore.Secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.check(time.Now()); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		address, secret string
		want            error
	}{
		{address, "another", ErrToken},
		{listener.URL + "/", fakesigstore.Secret, ErrToken},
		{"http://forge.example/token", fakesigstore.Secret, ErrToken},
		{"http://127.0.0.1:1/token", fakesigstore.Secret, ErrUnavailable},
	} {
		if got, err := GitHubToken(t.Context(), tt.address, tt.secret); got != "" || !errors.Is(err, tt.want) || strings.Contains(err.Error(), tt.secret) {
			t.Errorf("%s: %q, %v", tt.address, got, err)
		}
	}
	for _, path := range []func(*fakesigstore.Server){
		func(s *fakesigstore.Server) { s.Garbage = fakesigstore.PathToken },
		func(s *fakesigstore.Server) { s.Oversized = fakesigstore.PathToken },
	} {
		server := &fakesigstore.Server{Authority: a}
		path(server)
		broken := httptest.NewServer(server)
		if got, err := GitHubToken(t.Context(), broken.URL+fakesigstore.PathToken, fakesigstore.Secret); got != "" || err == nil {
			t.Errorf("%q, %v", got, err)
		}
		broken.Close()
	}
}

func FuzzToken(f *testing.F) {
	f.Add(fakesigstore.IdentityToken(by, time.Unix(1<<40, 0)))
	f.Add("a.e30.b")
	f.Add(`a.` + "eyJleHAiOjFlMzA4fQ" + `.b`)
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken([]byte(text))
		switch {
		case err != nil && (token != "" || !errors.Is(err, ErrToken)):
			t.Fatalf("%q beside %v", token, err)
		case err == nil:
			if again, err := ParseToken([]byte(token)); err != nil || again != token {
				t.Fatalf("%q, %v", again, err)
			}
		}
	})
}

func FuzzSigningConfig(f *testing.F) {
	text, err := fakesigstore.SigningConfig("http://127.0.0.1:1", 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSigningConfig(data, time.Now())
		if err != nil {
			if s.authority.URL != "" || s.logs != nil || s.stamps != nil {
				t.Fatalf("%v beside %v", s, err)
			}
			return
		}
		if !json.Valid(data) || len(s.logs) == 0 {
			t.Fatalf("%q: %v", data, s)
		}
	})
}
