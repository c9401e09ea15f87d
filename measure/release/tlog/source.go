package tlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"time"
)

// Source is where the log's files are read. What comes from it is not trusted.
type Source interface {
	// Read returns the file at a slash-separated path, of at most limit bytes. The
	// error is fs.ErrNotExist where there is none.
	Read(ctx context.Context, path string, limit int64) ([]byte, error)
}

// Dir is a log in a folder.
type Dir struct{ Root *os.Root }

// Read returns a file of the folder.
func (d Dir) Read(_ context.Context, path string, limit int64) ([]byte, error) {
	f, err := d.Root.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(path, f, limit)
}

// patience is the longest time that one answer may take.
const patience = time.Minute

// HTTP is a log at an address, http or https: what is read is signed, or hashed by
// what is signed.
type HTTP struct {
	base   *url.URL
	client *http.Client
}

// NewHTTP returns the log at an address.
func NewHTTP(address string) (HTTP, error) {
	base, err := url.Parse(address)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return HTTP{}, fmt.Errorf("%.300q is not an address of http or https", address)
	}
	return HTTP{base, &http.Client{Timeout: patience}}, nil
}

// Read asks for a file.
func (h HTTP) Read(ctx context.Context, path string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.base.JoinPath(path).String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return readAll(path, resp.Body, limit)
	case http.StatusNotFound, http.StatusGone:
		return nil, fmt.Errorf("%s: %s: %w", req.URL, resp.Status, fs.ErrNotExist)
	default:
		return nil, fmt.Errorf("%s: %s", req.URL, resp.Status)
	}
}

var errTooLong = errors.New("too long")

func readAll(path string, r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", path, errTooLong, limit)
	}
	return data, nil
}
