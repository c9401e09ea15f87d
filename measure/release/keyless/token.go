package keyless

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// MaxToken is the longest identity token that is taken, in bytes.
const MaxToken = 64 << 10

// audience is for whom sigstore's tokens are.
// Source: sigstore/fulcio, docs/how-certificate-issuing-works.md.
const audience = "sigstore"

// Token is an identity token of OpenID Connect, by which the certificate authority
// knows who signs. It is a secret: no error quotes it.
type Token string

// ParseToken reads a token, around which there may be white space.
func ParseToken(data []byte) (Token, error) {
	token := Token(strings.TrimSpace(string(data)))
	if _, err := token.expiry(); err != nil {
		return "", err
	}
	return token, nil
}

// expiry is when the token ends, by its own word, and the zero time where it does
// not say so. Only the certificate authority can check its signature.
func (t Token) expiry() (time.Time, error) {
	if len(t) > MaxToken {
		return time.Time{}, fmt.Errorf("%w: %d bytes, more than %d", ErrToken, len(t), MaxToken)
	}
	parts := strings.Split(string(t), ".")
	if len(parts) != 3 {
		return time.Time{}, fmt.Errorf("%w: %d parts between dots, want 3", ErrToken, len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: its second part: %w", ErrToken, err)
	}
	var claims struct {
		Exp float64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil { // whose error may quote
		return time.Time{}, fmt.Errorf("%w: its second part is not JSON with a time \"exp\"", ErrToken)
	}
	if claims.Exp == 0 {
		return time.Time{}, nil
	}
	return time.Unix(int64(claims.Exp), 0).UTC(), nil
}

func (t Token) check(now time.Time) error {
	expiry, err := t.expiry()
	if err != nil {
		return err
	}
	if !expiry.IsZero() && !now.Before(expiry) {
		return fmt.Errorf("%w: it expired at %s", ErrToken, expiry.Format(time.RFC3339))
	}
	return nil
}

// GitHubToken asks GitHub Actions for a token, at the address and with the secret
// of ACTIONS_ID_TOKEN_REQUEST_URL and ACTIONS_ID_TOKEN_REQUEST_TOKEN.
// Source: GitHub's documentation, "OpenID Connect reference", section "Methods for
// requesting the OIDC token".
func GitHubToken(ctx context.Context, address, secret string) (Token, error) {
	token, err := gitHubToken(ctx, address, secret)
	if err != nil {
		return "", fmt.Errorf("asking GitHub Actions for an identity token: %w", err)
	}
	return token, nil
}

func gitHubToken(ctx context.Context, address, secret string) (Token, error) {
	u, err := url.Parse(address)
	if err == nil {
		err = checkAddress(u)
	}
	if err != nil {
		return "", fmt.Errorf("%w: ACTIONS_ID_TOKEN_REQUEST_URL: %w", ErrToken, err)
	}
	query := u.Query()
	query.Set("audience", audience)
	u.RawQuery = query.Encode()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "bearer "+secret)
	resp, err := (&http.Client{Transport: newTransport(ctx)}).Do(req)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%w: it answers %s", ErrToken, resp.Status)
	}
	body, err := io.ReadAll(resp.Body) // which transport has bounded
	if err != nil {
		return "", err
	}
	var answer struct {
		Value string `json:"value"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Value == "" {
		return "", fmt.Errorf("%w: its answer is not JSON with a \"value\"", ErrUnavailable)
	}
	return ParseToken([]byte(answer.Value))
}
