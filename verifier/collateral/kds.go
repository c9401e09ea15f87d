// Package collateral finds what a report is judged with: certificates of VCEKs,
// AMD's chains and revocation lists. They come from a bundle, from a cache on
// disk, and from AMD's Key Distribution Service.
//
// It makes sure that an answer is of the kind that was asked for. Whether it is
// to be believed is the verifier's to say: nothing here checks a signature or a
// date. Formats and what is asked when: docs/spec/collateral.md.
package collateral

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/kraudcloud/kattest/verifier"
)

// AMD is the address of AMD's Key Distribution Service.
// Source: AMD 57230 rev 1.00, section 4.
const AMD = "https://kdsintf.amd.com"

// Largest answers that are read, in bytes.
const (
	maxCertificate = 16 << 10
	maxChain       = 64 << 10
	maxCRL         = verifier.MaxCRL
)

// KDS asks a Key Distribution Service. It is safe for concurrent use.
//
// What is too busy (429), out of order (5xx) or silent is asked again, after a
// pause that doubles with each attempt, or as long as it says (Retry-After).
// What it does not have (400, 404) is verifier.ErrNotFound.
type KDS struct {
	base     string
	client   *http.Client
	attempts int
	sleep    func(context.Context, time.Duration) error
}

// Option changes a KDS.
type Option func(*KDS)

// WithClient uses a client of the caller's. Redirects are not followed.
func WithClient(c *http.Client) Option {
	return func(k *KDS) {
		own := *c
		k.client = &own
	}
}

// WithAttempts asks at most n times, 5 by default.
func WithAttempts(n int) Option { return func(k *KDS) { k.attempts = max(1, n) } }

// WithSleep pauses by another clock.
func WithSleep(sleep func(context.Context, time.Duration) error) Option {
	return func(k *KDS) { k.sleep = sleep }
}

// NewKDS returns the service at base, such as AMD. One attempt takes at most 20
// seconds.
func NewKDS(base string, options ...Option) *KDS {
	k := &KDS{base: base, client: &http.Client{Timeout: 20 * time.Second}, attempts: 5, sleep: sleep}
	for _, option := range options {
		option(k)
	}
	k.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return k
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// VCEK asks for a VCEK's certificate.
func (k *KDS) VCEK(ctx context.Context, p verifier.Product, hwid []byte, tcb verifier.TCB) ([]byte, error) {
	der, err := k.get(ctx, vcekPath(p, hwid, tcb), maxCertificate)
	if err != nil {
		return nil, err
	}
	return der, checkVCEK(der, p, hwid, tcb)
}

// Chain asks for ASK, or ASVK, and ARK.
func (k *KDS) Chain(ctx context.Context, p verifier.Product, key verifier.SigningKey) ([]byte, error) {
	pem, err := k.get(ctx, path(p, key)+"/cert_chain", maxChain)
	if err != nil {
		return nil, err
	}
	_, err = verifier.ParseChain(pem)
	return pem, err
}

// CRL asks for the ARK's revocation list.
func (k *KDS) CRL(ctx context.Context, p verifier.Product, key verifier.SigningKey) ([]byte, error) {
	der, err := k.get(ctx, path(p, key)+"/crl", maxCRL)
	if err != nil {
		return nil, err
	}
	_, err = verifier.ParseCRL(der)
	return der, err
}

// path is the service's folder for a kind of key.
// Source: AMD 57230 rev 1.00, section 4.
func path(p verifier.Product, key verifier.SigningKey) string {
	if key == verifier.VLEK {
		return "/vlek/v1/" + p.String()
	}
	return "/vcek/v1/" + p.String()
}

// vcekPath names a VCEK. Turin's has a further level, that of the FMC.
// Source: AMD 57230 rev 1.00, section 4.1; fmcSPL: genuine Turin certificates,
// and how public programs ask for them.
func vcekPath(p verifier.Product, hwid []byte, tcb verifier.TCB) string {
	fmc := ""
	if p == verifier.Turin {
		fmc = fmt.Sprintf("fmcSPL=%d&", tcb.FMC)
	}
	return fmt.Sprintf("%s/%x?%sblSPL=%d&teeSPL=%d&snpSPL=%d&ucodeSPL=%d", path(p, verifier.VCEK), hwid, fmc, tcb.Bootloader, tcb.TEE, tcb.SNP, tcb.Microcode)
}

// Pauses between attempts.
const (
	firstPause = time.Second
	maxPause   = 30 * time.Second
)

// errRetry says that asking again may help.
type errRetry struct {
	err   error
	after time.Duration // 0 where the service does not say
}

func (e *errRetry) Error() string { return e.err.Error() }
func (e *errRetry) Unwrap() error { return e.err }

func (k *KDS) get(ctx context.Context, path string, limit int64) ([]byte, error) {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		body, err := k.try(ctx, path, limit)
		if err == nil {
			return body, nil
		}
		err = fmt.Errorf("%s%s: %w", k.base, path, err)
		again, ok := errors.AsType[*errRetry](err)
		if !ok || ctx.Err() != nil {
			return nil, err
		}
		if attempt == k.attempts {
			return nil, fmt.Errorf("%w (%d attempts)", err, attempt)
		}
		// Half of it by chance, so that many who were refused do not come back at once.
		wait := pause/2 + rand.N(pause/2)
		if again.after > 0 {
			wait = again.after
		}
		if wait > maxPause {
			return nil, fmt.Errorf("%w: asks for a pause of %v, more than %v", err, wait, maxPause)
		}
		if err := k.sleep(ctx, wait); err != nil {
			return nil, err
		}
		pause = min(2*pause, maxPause)
	}
}

func (k *KDS) try(ctx context.Context, path string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, &errRetry{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= 500:
		return nil, &errRetry{fmt.Errorf("status %s", resp.Status), retryAfter(resp)}
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusBadRequest:
		return nil, fmt.Errorf("status %s: %w", resp.Status, verifier.ErrNotFound)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("status %s", resp.Status)
	case err != nil:
		return nil, &errRetry{err: err}
	case int64(len(body)) > limit:
		return nil, fmt.Errorf("more than %d bytes", limit)
	}
	return body, nil
}

// retryAfter reads the header in seconds; a date is not, and none does the same.
func retryAfter(resp *http.Response) time.Duration {
	n, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// checkVCEK refuses another certificate than the one that was asked for.
func checkVCEK(der []byte, p verifier.Product, hwid []byte, tcb verifier.TCB) error {
	e, err := verifier.ParseEndorsement(der)
	switch {
	case err != nil:
		return fmt.Errorf("the answer is no VCEK's certificate: %w", err)
	case e.Key != verifier.VCEK || e.Product != p || e.TCB != tcb || string(e.HWID) != string(hwid):
		return errors.New("the answer is another key's certificate")
	}
	return nil
}
