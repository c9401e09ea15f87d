package fakesigstore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"google.golang.org/protobuf/encoding/protojson"
)

// Server is the authority's services behind HTTP. The fields make it fail.
type Server struct {
	Authority *Authority

	OtherKey   bool   // certify another key than the one that asks
	OtherStamp bool   // stamp something else
	Down       string // path of which the answer is 503
	Garbage    string // path of which the answer is no answer
	Oversized  string // path of which the answer has more bytes than can be taken
}

// Paths of the services.
// Source: sigstore/fulcio, fulcio.proto; sigstore/rekor, openapi.yaml;
// sigstore/rekor-tiles, rekor_service.proto; GitHub's own for tokens.
const (
	PathCertificate = "/api/v2/signingCert"
	PathTimestamp   = "/api/v1/timestamp"
	PathLog         = "/api/v1/log/entries"
	PathLogV2       = "/api/v2/log/entries"
	PathToken       = "/token" // GitHub Actions
)

// Secret is what PathToken wants.
const Secret = "runner's secret"

// SigningConfig returns the signing configuration of a server at that address, JSON,
// with a log of version 1 or 2.
func SigningConfig(address string, logVersion uint32) ([]byte, error) {
	now := time.Now().Add(-time.Hour)
	service := func(path string, version uint32) []root.Service {
		return []root.Service{{URL: address + path, MajorAPIVersion: version, ValidityPeriodStart: now, Operator: "forge.example"}}
	}
	one := root.ServiceConfiguration{Selector: prototrustroot.ServiceSelector_ANY}
	config, err := root.NewSigningConfig(root.SigningConfigMediaType02, service("", 1), nil, service("", logVersion), one, service(PathTimestamp, 1), one)
	if err != nil {
		return nil, err
	}
	return config.MarshalJSON()
}

// IdentityToken returns a token as an issuer gives it, but for its signature.
func IdentityToken(s Signing, expiry time.Time) string {
	claims, err := json.Marshal(map[string]any{"iss": s.Issuer, "sub": s.Subject, "aud": "sigstore", "exp": expiry.Unix()})
	if err != nil {
		panic(err) // of two strings and a number
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return b64([]byte(`{"alg":"ES256"}`)) + "." + b64(claims) + "." + b64([]byte("signature"))
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case s.Down:
		http.Error(w, "out of order", http.StatusServiceUnavailable)
		return
	case s.Garbage:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{}`)
		return
	case s.Oversized:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"value":"`+strings.Repeat("A", 20<<20)+`"}`)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		switch r.URL.Path {
		case PathCertificate:
			err = s.serveCertificate(w, r, body)
		case PathTimestamp:
			err = s.serveTimestamp(w, body)
		case PathLog:
			err = s.serveLog(w, body)
		case PathLogV2:
			err = s.serveLogV2(w, body)
		case PathToken:
			err = s.serveToken(w, r)
		default:
			err = fmt.Errorf("no service at %s", r.URL.Path)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

// serveToken is GitHub's, which gives a token to who has the runner's secret.
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) error {
	if r.Header.Get("Authorization") != "bearer "+Secret || r.URL.Query().Get("audience") != "sigstore" {
		return errors.New("who asks?")
	}
	by := Signing{Subject: r.URL.Query().Get("subject"), Issuer: r.URL.Query().Get("issuer")}
	return json.NewEncoder(w).Encode(map[string]any{"value": IdentityToken(by, time.Now().Add(time.Minute))})
}

func (s *Server) serveCertificate(w http.ResponseWriter, r *http.Request, body []byte) error {
	by, err := bearer(r)
	if err != nil {
		return err
	}
	var ask struct {
		PublicKeyRequest struct {
			PublicKey struct {
				Content string `json:"content"`
			} `json:"publicKey"`
			ProofOfPossession []byte `json:"proofOfPossession"`
		} `json:"publicKeyRequest"`
	}
	if err := json.Unmarshal(body, &ask); err != nil {
		return err
	}
	block, _ := pem.Decode([]byte(ask.PublicKeyRequest.PublicKey.Content))
	if block == nil {
		return errors.New("no public key")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return err
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	subject := sha256.Sum256([]byte(by.Subject))
	if !ok || !ecdsa.VerifyASN1(key, subject[:], ask.PublicKeyRequest.ProofOfPossession) {
		return errors.New("no proof of possession")
	}
	if s.OtherKey {
		other, err := newKey()
		if err != nil {
			return err
		}
		key = &other.PublicKey
	}
	certificate, err := s.Authority.certify(key, by)
	if err != nil {
		return err
	}
	var chain []string
	for _, c := range []*x509.Certificate{certificate, s.Authority.issuer, s.Authority.root} {
		chain = append(chain, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})))
	}
	return json.NewEncoder(w).Encode(map[string]any{"signedCertificateEmbeddedSct": map[string]any{"chain": map[string]any{"certificates": chain}}})
}

// bearer is whom the request's token names, of which the signature alone is not
// checked.
func bearer(r *http.Request) (Signing, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	parts := strings.Split(token, ".")
	if !ok || len(parts) != 3 {
		return Signing{}, errors.New("no token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return Signing{}, err
	}
	var claims struct {
		Iss, Sub, Aud string
		Exp           int64
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return Signing{}, err
	}
	if claims.Aud != "sigstore" {
		return Signing{}, errors.New("the token is not for us")
	}
	return Signing{Subject: claims.Sub, Issuer: claims.Iss}, nil
}

func newStamps() (*root.SigstoreTimestampingAuthority, *ecdsa.PrivateKey, error) {
	rootCert, rootKey, err := ca.GenerateRootCa()
	if err != nil {
		return nil, nil, err
	}
	issuer, issuerKey, err := ca.GenerateTSAIntermediate(rootCert, rootKey)
	if err != nil {
		return nil, nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	leaf, err := ca.GenerateTSALeafCert(time.Now().Add(-time.Minute), key, issuer, issuerKey)
	if err != nil {
		return nil, nil, err
	}
	return &root.SigstoreTimestampingAuthority{
		Root: rootCert, Intermediates: []*x509.Certificate{issuer}, Leaf: leaf, URI: "https://tsa.localhost",
		ValidityPeriodStart: time.Now().Add(-time.Hour), ValidityPeriodEnd: time.Now().Add(time.Hour),
	}, key, nil
}

func (s *Server) serveTimestamp(w http.ResponseWriter, body []byte) error {
	ask, err := timestamp.ParseRequest(body)
	if err != nil {
		return err
	}
	if s.OtherStamp {
		ask.HashedMessage[0] ^= 1
	}
	answer, err := (&timestamp.Timestamp{
		HashAlgorithm: ask.HashAlgorithm, HashedMessage: ask.HashedMessage, Time: time.Now(), ExtraExtensions: ask.Extensions,
		Policy: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2},
	}).CreateResponseWithOpts(s.Authority.stamps.Leaf, s.Authority.stampKey, crypto.SHA256)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/timestamp-reply")
	w.WriteHeader(http.StatusCreated)
	_, err = w.Write(answer)
	return err
}

func (s *Server) serveLog(w http.ResponseWriter, body []byte) error {
	var ask struct {
		Kind string `json:"kind"`
		Spec struct {
			ProposedContent struct {
				Envelope  string   `json:"envelope"`
				Verifiers [][]byte `json:"verifiers"`
			} `json:"proposedContent"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(body, &ask); err != nil {
		return err
	}
	var envelope dsse.Envelope
	if err := json.Unmarshal([]byte(ask.Spec.ProposedContent.Envelope), &envelope); err != nil {
		return err
	}
	if ask.Kind != "dsse" || len(envelope.Signatures) != 1 || len(ask.Spec.ProposedContent.Verifiers) != 1 {
		return errors.New("want one signature of a dsse envelope")
	}
	sig, err := base64.StdEncoding.DecodeString(envelope.Signatures[0].Sig)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(ask.Spec.ProposedContent.Verifiers[0])
	if block == nil {
		return errors.New("no certificate")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	entry, err := s.Authority.log(certificate, &envelope, sig, Signing{})
	if err != nil {
		return err
	}
	return answerLog(w, entry)
}

// answerLog answers as a log of version 1.
func answerLog(w http.ResponseWriter, entry *protorekor.TransparencyLogEntry) error {
	proof := entry.GetInclusionProof()
	hashes := []string{}
	for _, h := range proof.GetHashes() {
		hashes = append(hashes, hex.EncodeToString(h))
	}
	uuid := sha256.Sum256(append([]byte{0}, entry.GetCanonicalizedBody()...))
	name := hex.EncodeToString(uuid[:])
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("ETag", name)
	w.Header().Set("Location", PathLog+"/"+name)
	w.WriteHeader(http.StatusCreated)
	return json.NewEncoder(w).Encode(map[string]any{name: map[string]any{
		"body": entry.GetCanonicalizedBody(), "integratedTime": entry.GetIntegratedTime(), "logIndex": entry.GetLogIndex(),
		"logID": hex.EncodeToString(entry.GetLogId().GetKeyId()),
		"verification": map[string]any{
			"signedEntryTimestamp": entry.GetInclusionPromise().GetSignedEntryTimestamp(),
			"inclusionProof": map[string]any{
				"checkpoint": proof.GetCheckpoint().GetEnvelope(), "hashes": hashes, "logIndex": proof.GetLogIndex(),
				"rootHash": hex.EncodeToString(proof.GetRootHash()), "treeSize": proof.GetTreeSize(),
			},
		},
	}})
}

// serveLogV2 answers as a log of version 2, which holds digests and no statements.
func (s *Server) serveLogV2(w http.ResponseWriter, body []byte) error {
	entry, err := s.Authority.logV2(body)
	if err != nil {
		return err
	}
	answer, err := protojson.Marshal(entry)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_, err = w.Write(answer)
	return err
}

func (a *Authority) logV2(body []byte) (*protorekor.TransparencyLogEntry, error) {
	var ask struct {
		HashedRekordRequestV002 struct {
			Digest    []byte `json:"digest"`
			Signature any    `json:"signature"`
		} `json:"hashedRekordRequestV002"`
	}
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, err
	}
	request := ask.HashedRekordRequestV002
	// Members in alphabetical order, no white space: what RFC 8785 makes of such a tree.
	leaf, err := json.Marshal(map[string]any{
		"apiVersion": "0.0.2", "kind": "hashedrekord",
		"spec": map[string]any{"hashedRekordV002": map[string]any{
			"data":      map[string]any{"algorithm": "SHA2_256", "digest": request.Digest},
			"signature": request.Signature,
		}},
	})
	if err != nil {
		return nil, err
	}
	proof, err := a.services.GetInclusionProof(leaf)
	if err != nil {
		return nil, err
	}
	rootHash, err := hex.DecodeString(*proof.RootHash)
	if err != nil {
		return nil, err
	}
	id, err := a.services.RekorLogID()
	if err != nil {
		return nil, err
	}
	rawID, err := hex.DecodeString(id)
	if err != nil {
		return nil, err
	}
	return &protorekor.TransparencyLogEntry{
		LogId: &protocommon.LogId{KeyId: rawID}, KindVersion: &protorekor.KindVersion{Kind: "hashedrekord", Version: "0.0.2"},
		InclusionProof: &protorekor.InclusionProof{
			TreeSize: 1, RootHash: rootHash, Checkpoint: &protorekor.Checkpoint{Envelope: *proof.Checkpoint},
		},
		CanonicalizedBody: leaf,
	}, nil
}
