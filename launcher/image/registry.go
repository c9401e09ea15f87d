package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// openRegistry finds an image in a registry, with docker's own credentials if
// there are any.
func openRegistry(ctx context.Context, reference string) (*Image, error) {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", reference, err)
	}
	options := []remote.Option{
		remote.WithContext(ctx),
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithTransport(secureTransport{remote.DefaultTransport}),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "amd64"}),
		remote.WithUserAgent("cradle-snp"),
	}
	img, err := fetchImage(ref, options)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref.Name(), unavailable(err))
	}
	img.Reference = ref.Name()
	return img, nil
}

func fetchImage(ref name.Reference, options []remote.Option) (*Image, error) {
	desc, err := remote.Get(ref, options...)
	if err != nil {
		return nil, err
	}
	if !desc.MediaType.IsImage() && !desc.MediaType.IsIndex() {
		return nil, fmt.Errorf("manifest %s: mediaType %q is not an image's", desc.Digest, desc.MediaType)
	}
	remoteImage, err := desc.Image()
	if err != nil {
		return nil, err
	}
	raw, err := remoteImage.RawManifest()
	if err != nil {
		return nil, err
	}
	repo := ref.Context()
	return newImage(raw, func(desc v1.Descriptor) (io.ReadCloser, error) {
		l, err := remote.Layer(repo.Digest(desc.Digest.String()), options...)
		if err != nil {
			return nil, err
		}
		rc, err := l.Compressed()
		if err != nil {
			return nil, fmt.Errorf("blob %s: %w", desc.Digest, unavailable(err))
		}
		return rc, nil
	})
}

// unavailable marks errors that trying again may cure.
func unavailable(err error) error {
	if refused, ok := errors.AsType[*transport.Error](err); ok && !refused.Temporary() {
		return err // the registry has answered: no such image, or not for you
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if _, ok := errors.AsType[*transport.Error](err); ok {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// secureTransport refuses plain HTTP but to this machine; the library would
// also speak it to private networks.
type secureTransport struct{ http.RoundTripper }

func (s secureTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !loopback(r.URL.Hostname()) {
		return nil, fmt.Errorf("refusing plain HTTP to %s", r.URL.Host)
	}
	return s.RoundTripper.RoundTrip(r)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
