// Package registry keeps boot stacks and what is signed about them in an OCI
// registry: a stack as an artifact of its files, and each sigstore bundle as a
// referrer, in the form that cosign gives to attestations. docs/publishing.md
// shows both.
//
// A registry is not trusted: it can hide what was published, and offer anything as
// a bundle. What it answers is bounded and compared with the digests that led to
// it; whose signature a bundle has is the caller's to check.
package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/stack"
)

// Scheme begins the references that are read here.
const Scheme = "oci://"

// Media types. Source: OCI image specification 1.1, manifest.md, Guidance for an
// Empty Descriptor; sigstore's protobuf-specs, sigstore_bundle.proto.
const (
	emptyType  types.MediaType = "application/vnd.oci.empty.v1+json"
	fileType   types.MediaType = "application/octet-stream"
	bundleType                 = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

// Annotations. Source: OCI image specification 1.1, annotations.md; cosign's
// attestations in the bundle format.
const (
	annotationTitle     = "org.opencontainers.image.title"
	annotationContent   = "dev.sigstore.bundle.content"
	annotationPredicate = "dev.sigstore.bundle.predicateType"
)

// Bounds of what is read.
const (
	maxBundles  = 64
	maxResponse = release.MaxBundle + 1<<20 // bytes, of any one answer
	maxRequests = 16 * maxBundles           // for one reference, those of redirections too
	maxTime     = 2 * time.Minute           // for one reference
)

// Is reports whether s names something in a registry.
func Is(s string) bool { return strings.HasPrefix(s, Scheme) }

// Client reaches registries with the credentials of docker's configuration.
type Client struct {
	// PlainHTTP asks without TLS. Registries on this machine are always asked so.
	PlainHTTP bool
	// Transport is that of http.DefaultTransport where it is nil.
	Transport http.RoundTripper
}

// parse reads oci://HOST/REPOSITORY with a tag or a digest, one of which must be
// there: "latest" is nobody's release.
func (c Client) parse(s string) (name.Reference, error) {
	rest, ok := strings.CutPrefix(s, Scheme)
	if !ok {
		return nil, fmt.Errorf("%q does not begin with %s", s, Scheme)
	}
	options := []name.Option{name.WithDefaultTag("")}
	if c.PlainHTTP {
		options = append(options, name.Insecure)
	}
	ref, err := name.ParseReference(rest, options...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s, err)
	}
	if ref.Identifier() == "" {
		return nil, fmt.Errorf("%s: has neither a tag nor a digest", s)
	}
	if !strings.HasPrefix(rest, ref.Context().RegistryStr()+"/") {
		return nil, fmt.Errorf("%s: does not name a registry's host", s)
	}
	return ref, nil
}

func (c Client) options(ctx context.Context) []remote.Option {
	inner := c.Transport
	if inner == nil {
		inner = remote.DefaultTransport
	}
	return []remote.Option{
		remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithTransport(&bounded{RoundTripper: inner}),
		remote.WithUserAgent("kattest"),
	}
}

// bounded refuses answers that go on for too long, and those that lead in circles.
type bounded struct {
	http.RoundTripper
	requests atomic.Int64
}

func (b *bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	if b.requests.Add(1) > maxRequests {
		return nil, fmt.Errorf("it takes more than %d requests", maxRequests)
	}
	resp, err := b.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &boundedBody{resp.Body, maxResponse}
	return resp, nil
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

var errTooLong = fmt.Errorf("the answer has more than %d bytes", int64(maxResponse))

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// manifest is a manifest that is put as it stands.
type manifest []byte

func newManifest(artifact string, subject *v1.Descriptor, annotations map[string]string, layers []v1.Descriptor) (manifest, error) {
	return json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: artifact, Config: emptyConfig(), Layers: layers,
		Annotations: annotations, Subject: subject,
	})
}

func (m manifest) RawManifest() ([]byte, error)        { return m, nil }
func (m manifest) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

func (m manifest) digest() v1.Hash { return digestOf(m) }

func digestOf(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// empty is what configurations hold that say nothing.
const empty = "{}"

func emptyConfig() v1.Descriptor {
	return v1.Descriptor{MediaType: emptyType, Size: int64(len(empty)), Digest: digestOf([]byte(empty))}
}

// PushStack puts the boot stack in dir there, each file a layer with its name,
// stack.json first, and returns the digest by which it is named from then on. The
// same stack has the same digest everywhere. The files must be those of the
// manifest.
func (c Client) PushStack(ctx context.Context, to, dir string) (string, error) {
	ref, err := c.parse(to)
	if err != nil {
		return "", err
	}
	s, err := stack.Load(dir)
	if err != nil {
		return "", err
	}
	options := c.options(ctx)
	var layers []v1.Descriptor
	for _, file := range append([]string{stack.Manifest}, fileNames(s)...) {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return "", err
		}
		kind := fileType
		if file == stack.Manifest {
			kind = stack.MediaType
		}
		layer, err := push(ref, static.NewLayer(data, kind), options)
		if err != nil {
			return "", failed(to, err)
		}
		layer.Annotations = map[string]string{annotationTitle: file}
		layers = append(layers, layer)
	}
	m, err := newManifest(stack.MediaType, nil, nil, layers)
	if err != nil {
		return "", err
	}
	digest := ref.Context().Digest(m.digest().String())
	if d, ok := ref.(name.Digest); ok && d.DigestStr() != digest.DigestStr() {
		return "", fmt.Errorf("%s: the stack in %s is %s", to, dir, digest.DigestStr())
	}
	return Scheme + digest.String(), failed(to, c.put(ref, m, options))
}

func fileNames(s stack.Stack) []string {
	var names []string
	for _, f := range s.Files {
		names = append(names, f.Name)
	}
	return names
}

func push(ref name.Reference, layer v1.Layer, options []remote.Option) (v1.Descriptor, error) {
	if err := remote.WriteLayer(ref.Context(), layer, options...); err != nil {
		return v1.Descriptor{}, err
	}
	digest, err := layer.Digest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	size, err := layer.Size()
	if err != nil {
		return v1.Descriptor{}, err
	}
	kind, err := layer.MediaType()
	return v1.Descriptor{MediaType: kind, Size: size, Digest: digest}, err
}

// put writes a manifest and the empty configuration that it names.
func (c Client) put(ref name.Reference, m manifest, options []remote.Option) error {
	if err := remote.WriteLayer(ref.Context(), static.NewLayer([]byte(empty), emptyType), options...); err != nil {
		return err
	}
	return remote.Put(ref, m, options...)
}

// Attach makes the bundle a referrer of what the reference names, which must be
// there, and returns the digest by which the referrer is named. Attached a second
// time, nothing changes.
func (c Client) Attach(ctx context.Context, to string, bundle []byte, predicateType string) (string, error) {
	ref, err := c.parse(to)
	if err != nil {
		return "", err
	}
	options := c.options(ctx)
	subject, err := remote.Get(ref, options...)
	if err != nil {
		return "", failed(to, err)
	}
	layer, err := push(ref, static.NewLayer(bundle, bundleType), options)
	if err != nil {
		return "", failed(to, err)
	}
	annotations := map[string]string{annotationContent: "dsse-envelope", annotationPredicate: predicateType}
	of := v1.Descriptor{MediaType: subject.MediaType, Size: subject.Size, Digest: subject.Digest}
	m, err := newManifest(bundleType, &of, annotations, []v1.Descriptor{layer})
	if err != nil {
		return "", err
	}
	digest := ref.Context().Digest(m.digest().String())
	return Scheme + digest.String(), failed(to, c.put(digest, m, options))
}

// Bundle is a referrer that says that it is a sigstore bundle.
type Bundle struct {
	Name string // by its digest
	Data []byte
}

// ErrNone says that a registry knows of no bundle of that type.
var ErrNone = errors.New("has no bundle")

// Bundles returns the bundles that refer to what the reference names, and whose
// statements are, by the registry's word, of that predicate type or of none that
// is known. There is one at least; ErrNone is wrapped otherwise.
func (c Client) Bundles(ctx context.Context, from, predicateType string) ([]Bundle, error) {
	ref, err := c.parse(from)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	bundles, err := c.bundles(ctx, ref, predicateType)
	if err != nil {
		return nil, failed(from, err)
	}
	return bundles, nil
}

func (c Client) bundles(ctx context.Context, ref name.Reference, predicateType string) ([]Bundle, error) {
	options := c.options(ctx)
	subject, ok := ref.(name.Digest)
	if !ok {
		named, err := remote.Get(ref, options...)
		if err != nil {
			return nil, err
		}
		subject = ref.Context().Digest(named.Digest.String())
	}
	index, err := remote.Referrers(subject, options...)
	if err != nil {
		return nil, err
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("referrers: %w", err)
	}
	wanted := slices.DeleteFunc(slices.Clone(list.Manifests), func(d v1.Descriptor) bool {
		return !wants(d.ArtifactType, d.Annotations, predicateType)
	})
	if len(wanted) > maxBundles {
		return nil, fmt.Errorf("has %d bundles, more than %d", len(wanted), maxBundles)
	}
	var bundles []Bundle
	none := fmt.Errorf("%w of type %s", ErrNone, predicateType)
	for _, d := range wanted {
		digest := ref.Context().Digest(d.Digest.String())
		data, err := fetch(digest, subject.DigestStr(), predicateType, options)
		switch {
		case errors.Is(err, errForeign):
			none = fmt.Errorf("%w; referrer %v: %w", none, d.Digest, err)
		case err != nil:
			return nil, fmt.Errorf("referrer %v: %w", d.Digest, err)
		default:
			bundles = append(bundles, Bundle{Scheme + digest.String(), data})
		}
	}
	if len(bundles) == 0 {
		return nil, none
	}
	return bundles, nil
}

// wants says whether a referrer may be a bundle of that type. Some registries take
// the configuration's type for the artifact's, and some keep no annotations.
func wants(artifact string, annotations map[string]string, predicateType string) bool {
	return slices.Contains([]string{bundleType, string(emptyType), ""}, artifact) &&
		cmp.Or(annotations[annotationPredicate], predicateType) == predicateType
}

// errForeign says that a referrer is no bundle of that type: whoever may write to
// the registry may put such things there, which must not be in others' way.
var errForeign = errors.New("no such bundle")

// fetch reads the one layer of a referrer. The library compares manifest and layer
// with their digests.
func fetch(digest name.Digest, subject, predicateType string, options []remote.Option) ([]byte, error) {
	got, err := remote.Get(digest, options...)
	if err != nil {
		return nil, err
	}
	var m v1.Manifest
	if err := json.Unmarshal(got.Manifest, &m); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", errForeign, err)
	}
	switch {
	case m.ArtifactType != bundleType || !wants(bundleType, m.Annotations, predicateType):
		return nil, fmt.Errorf("%w: it is another artifact", errForeign)
	case m.Subject == nil || m.Subject.Digest.String() != subject:
		return nil, fmt.Errorf("%w: subject: it refers to something else", errForeign)
	case len(m.Layers) != 1:
		return nil, fmt.Errorf("%w: layers: %d, want 1", errForeign, len(m.Layers))
	case m.Layers[0].Size < 0 || m.Layers[0].Size > release.MaxBundle:
		return nil, fmt.Errorf("%w: layers[0].size: %d bytes, more than %d", errForeign, m.Layers[0].Size, release.MaxBundle)
	}
	layer, err := remote.Layer(digest.Context().Digest(m.Layers[0].Digest.String()), options...)
	if err != nil {
		return nil, err
	}
	r, err := layer.Compressed() // as it stands
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != m.Layers[0].Size {
		return nil, fmt.Errorf("%w: layers[0]: %d bytes, the manifest says %d", errForeign, len(data), m.Layers[0].Size)
	}
	return data, nil
}

// Error says that a registry could not be had, or that it answered what cannot be.
type Error struct {
	Reference string
	Err       error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Reference, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Missing reports whether the registry says that there is no such thing.
func (e *Error) Missing() bool {
	answer, ok := errors.AsType[*transport.Error](e.Err)
	return errors.Is(e.Err, ErrNone) || ok && answer.StatusCode == http.StatusNotFound
}

func failed(reference string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{reference, err}
}
