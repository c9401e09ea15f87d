package verifier_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/internal/swtpm"
	"github.com/kraudcloud/kattest/launcher/simpsp"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/verifier"
	"github.com/kraudcloud/kattest/verifier/vtpm"
)

// testTPM is a software TPM with an endorsement and an attestation key.
type testTPM struct {
	testing.TB
	tpm    transport.TPM
	ek, ak *tpm2.CreatePrimaryResponse
	keys   *uint32 // that were made
}

func newTPM(t *testing.T) testTPM {
	t.Helper()
	tpm, err := linuxudstpm.Open(swtpm.Unix(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tpm.Close() })
	m := testTPM{TB: t, tpm: tpm, keys: new(uint32)}
	m.ek = m.primary(tpm2.RSAEKTemplate)
	m.ak = m.primary(attestationKey(tpm2.TPMAlgRSASSA, true))
	return m
}

// attestationKey is the template of a signing key.
func attestationKey(scheme tpm2.TPMAlgID, restricted bool) tpm2.TPMTPublic {
	details := tpm2.NewTPMUAsymScheme(scheme, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256})
	if scheme == tpm2.TPMAlgRSAPSS {
		details = tpm2.NewTPMUAsymScheme(scheme, &tpm2.TPMSSigSchemeRSAPSS{HashAlg: tpm2.TPMAlgSHA256})
	}
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true, Restricted: restricted,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			Scheme: tpm2.TPMTRSAScheme{Scheme: scheme, Details: details}, KeyBits: 2048,
		}),
	}
}

// eccAttestationKey is the same on P-256.
func eccAttestationKey() tpm2.TPMTPublic {
	key := attestationKey(tpm2.TPMAlgRSASSA, true)
	key.Type = tpm2.TPMAlgECC
	key.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Scheme:  tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
		CurveID: tpm2.TPMECCNistP256,
	})
	return key
}

func (m testTPM) primary(template tpm2.TPMTPublic) *tpm2.CreatePrimaryResponse {
	m.Helper()
	key, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(m.tpm)
	if err != nil {
		m.Fatal(err)
	}
	*m.keys++ // it is kept in the TPM's storage, as its memory holds three
	kept := tpm2.TPMIDHPersistent(0x81000000 + *m.keys)
	if _, err := (tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name}, PersistentHandle: kept,
	}).Execute(m.tpm); err != nil {
		m.Fatal(err)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: key.ObjectHandle}).Execute(m.tpm); err != nil {
		m.Fatal(err)
	}
	key.ObjectHandle = kept
	return key
}

func named(key *tpm2.CreatePrimaryResponse) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: key.ObjectHandle, Name: key.Name, Auth: tpm2.PasswordAuth(nil)}
}

// extend measures data, and returns the event.
func (m testTPM) extend(pcr uint32, data string) []byte {
	m.Helper()
	event := tpm2.PCREvent{PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)}, EventData: tpm2.TPM2BEvent{Buffer: []byte(data)}}
	if _, err := event.Execute(m.tpm); err != nil {
		m.Fatal(err)
	}
	const evAction = 5
	sum := sha256.Sum256([]byte(data))
	var e []byte
	for _, n := range []uint32{pcr, evAction, 1} {
		e = binary.LittleEndian.AppendUint32(e, n)
	}
	e = append(binary.LittleEndian.AppendUint16(e, uint16(vtpm.SHA256)), sum[:]...)
	return append(binary.LittleEndian.AppendUint32(e, uint32(len(data))), data...)
}

// logOf makes an event log of SHA-256.
func logOf(events ...[]byte) []byte {
	spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0b, 0, 32, 0, 0)
	log := make([]byte, 28)
	log[4] = 3 // EV_NO_ACTION
	log = append(binary.LittleEndian.AppendUint32(log, uint32(len(spec))), spec...)
	return append(log, bytes.Join(events, nil)...)
}

// quote quotes PCRs of SHA-256.
func (m testTPM) quote(key *tpm2.CreatePrimaryResponse, extraData []byte, pcrs ...uint) *evidence.Quote {
	m.Helper()
	selection := tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...)}}}
	q, err := tpm2.Quote{
		SignHandle: named(key), QualifyingData: tpm2.TPM2BData{Buffer: extraData},
		InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, PCRSelect: selection,
	}.Execute(m.tpm)
	if err != nil {
		m.Fatal(err)
	}
	values, err := tpm2.PCRRead{PCRSelectionIn: selection}.Execute(m.tpm)
	if err != nil {
		m.Fatal(err)
	}
	quote := &evidence.Quote{Message: q.Quoted.Bytes(), Signature: tpm2.Marshal(q.Signature)}
	for _, v := range values.PCRValues.Digests {
		quote.PCRs = append(quote.PCRs, v.Buffer...)
	}
	return quote
}

// public is a key's public area.
func public(key *tpm2.CreatePrimaryResponse) []byte { return key.OutPublic.Bytes() }

// hclReport is what a paravisor makes: a report of guest that binds the AK.
func hclReport(t *testing.T, guest *simpsp.Guest, ak *tpm2.CreatePrimaryResponse, userData []byte) []byte {
	t.Helper()
	area, err := ak.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	n, err := area.Unique.RSA()
	if err != nil {
		t.Fatal(err)
	}
	runtime := fmt.Sprintf(`{"keys":[{"kid":"HCLAkPub","key_ops":["sign"],"kty":"RSA","e":"AQAB","n":%q}],"vm-configuration":{"secure-boot":true},"user-data":"%0128X"}`,
		base64.RawURLEncoding.EncodeToString(n.Buffer), userData)
	return hclWith(guest, runtime)
}

func hclWith(guest *simpsp.Guest, runtime string) []byte { return hclAt(guest, runtime, 0) }

func hclAt(guest *simpsp.Guest, runtime string, vmpl uint32) []byte {
	sum := sha256.Sum256([]byte(runtime))
	var reportData [64]byte
	copy(reportData[:], sum[:])
	report := guest.Report(reportData, vmpl)
	le := binary.LittleEndian
	b := []byte("HCLA")
	for _, n := range []uint32{2, uint32(0x4d4 + len(runtime)), 2, 0, 0, 0, 0} {
		b = le.AppendUint32(b, n)
	}
	b = append(b, report[:]...)
	for _, n := range []uint32{uint32(20 + len(runtime)), 1, 2, 1, uint32(len(runtime))} {
		b = le.AppendUint32(b, n)
	}
	return append(append(b, runtime...), make([]byte, 100)...)
}

// simulated returns a guest on a simulated processor, and a policy that it meets.
func simulated(t *testing.T) (*simpsp.Guest, verifier.Policy) {
	t.Helper()
	psp, err := simpsp.Load(filepath.Join(t.TempDir(), "psp"))
	if err != nil {
		t.Fatal(err)
	}
	chain, err := verifier.ParseSimulatedChain(psp.Chain())
	if err != nil {
		t.Fatal(err)
	}
	vcek, err := verifier.ParseCertificate(psp.VCEK())
	if err != nil {
		t.Fatal(err)
	}
	digest, spec := measure.Digest{2}, [32]byte{1}
	return psp.Launch(digest, spec, 0x30000), verifier.Policy{
		Time: time.Now(), Simulated: chain, VCEK: vcek, HostData: &spec, Products: anyProduct(),
		References: []verifier.Reference{{Measurement: digest, VCPUs: 1, Label: "one vCPU"}},
	}
}

// judged is one judgement of vTPM evidence, and what it must come to.
type judged struct {
	name    string
	change  func(e *evidence.TPM, p *verifier.Policy)
	verdict verifier.Verdict
	fails   []verifier.Code
}

func judge(t *testing.T, e evidence.TPM, p verifier.Policy, tt judged) {
	t.Helper()
	if tt.change != nil {
		tt.change(&e, &p)
	}
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	r, err := verifier.New(nil).Judge(t.Context(), tt.name, data, p)
	if (err == nil) != (tt.verdict == verifier.Verified) {
		t.Errorf("error %v", err)
	}
	if r.Verdict != tt.verdict || r.Form != verifier.FormTPM {
		t.Errorf("verdict %v of %s, want %v", r.Verdict, r.Form, tt.verdict)
	}
	if diff := cmp.Diff(tt.fails, failures(r)); diff != "" {
		t.Errorf("failures (-want +got):\n%s\n%v", diff, err)
	}
}

// A software TPM whose AK is bound as Azure's paravisor does it.
func TestTPMOfParavisor(t *testing.T) {
	m := newTPM(t)
	guest, policy := simulated(t)
	nonce := []byte("0123456789abcdef")
	log := logOf(m.extend(4, "Calling EFI Application from Boot Option"), m.extend(7, "separator"))
	m.extend(8, "what no firmware measured")
	good := evidence.TPM{
		MediaType: evidence.TPMMediaType, HCL: hclReport(t, guest, m.ak, nil),
		Quote: m.quote(m.ak, nonce, 0, 4, 7, 8), EventLog: log,
	}
	value := func(i int) []byte { return bytes.Clone(good.Quote.PCRs[32*i:][:32]) }
	pcr := func(i int) vtpm.PCR { return vtpm.PCR{Bank: vtpm.SHA256, Index: i} }
	policy.Nonce = nonce
	policy.TPM = &verifier.TPMPolicy{
		PCRs:   map[vtpm.PCR][][]byte{pcr(4): {make([]byte, 32), value(1)}, pcr(7): {value(2)}},
		Quoted: []vtpm.PCR{pcr(0), pcr(8)}, EventLog: true,
	}
	stranger := newTPM(t)
	requote := func(key *tpm2.CreatePrimaryResponse, extraData []byte, pcrs ...uint) func(*evidence.TPM, *verifier.Policy) {
		q := m.quote(key, extraData, pcrs...)
		return func(e *evidence.TPM, _ *verifier.Policy) { e.Quote = q }
	}
	quote := func(change func(q *evidence.Quote)) func(*evidence.TPM, *verifier.Policy) {
		return func(e *evidence.TPM, _ *verifier.Policy) {
			q := evidence.Quote{Message: bytes.Clone(e.Quote.Message), Signature: bytes.Clone(e.Quote.Signature), PCRs: bytes.Clone(e.Quote.PCRs)}
			change(&q)
			e.Quote = &q
		}
	}
	pss := m.primary(attestationKey(tpm2.TPMAlgRSAPSS, true))
	for _, tt := range []judged{
		{"good", nil, verifier.Verified, nil},
		{"without a log, where none is demanded", func(e *evidence.TPM, p *verifier.Policy) {
			e.EventLog, p.TPM = nil, &verifier.TPMPolicy{PCRs: p.TPM.PCRs}
		}, verifier.Verified, nil},
		{"PCRs left out", func(_ *evidence.TPM, p *verifier.Policy) { p.TPM, p.WithoutPCRs = nil, true }, verifier.Verified, nil},
		{"RSAPSS", func(e *evidence.TPM, _ *verifier.Policy) {
			e.HCL, e.Quote = hclReport(t, guest, pss, nil), m.quote(pss, nonce, 0, 4, 7, 8)
		}, verifier.Verified, nil},

		{"nothing said of PCRs", func(_ *evidence.TPM, p *verifier.Policy) { p.TPM = nil }, verifier.Mismatch, []verifier.Code{"tpm.policy"}},
		{"another value", func(_ *evidence.TPM, p *verifier.Policy) {
			p.TPM = &verifier.TPMPolicy{PCRs: map[vtpm.PCR][][]byte{pcr(4): {value(2)}}}
		}, verifier.Mismatch, []verifier.Code{"tpm.policy"}},
		{"a PCR that is not quoted", requote(m.ak, nonce, 4, 7, 8), verifier.Mismatch, []verifier.Code{"tpm.policy"}},
		{"another nonce", requote(m.ak, []byte("fedcba9876543210"), 0, 4, 7, 8), verifier.Mismatch, []verifier.Code{"tpm.nonce"}},
		{"no nonce demanded", func(_ *evidence.TPM, p *verifier.Policy) { p.Nonce = nil }, verifier.Mismatch, []verifier.Code{"tpm.nonce"}},
		{"another TPM's key", requote(m.primary(attestationKey(tpm2.TPMAlgRSASSA, false)), nonce, 0, 4, 7, 8), verifier.Forged, []verifier.Code{"tpm.quote"}},
		{"another TPM's quote", func(e *evidence.TPM, _ *verifier.Policy) { e.Quote = stranger.quote(stranger.ak, nonce, 0, 4, 7, 8) }, verifier.Forged, []verifier.Code{"tpm.quote"}},
		{"another guest's HCL report", func(e *evidence.TPM, _ *verifier.Policy) { e.HCL = hclReport(t, guest, stranger.ak, nil) }, verifier.Forged, []verifier.Code{"tpm.quote"}},
		{"another key in the runtime data", func(e *evidence.TPM, _ *verifier.Policy) {
			other := hclReport(t, guest, stranger.ak, nil)
			copy(other[0x20:0x20+1184], e.HCL[0x20:])
			e.HCL = other
		}, verifier.Forged, []verifier.Code{"tpm.binding"}},
		{"altered message", quote(func(q *evidence.Quote) { q.Message[20] ^= 1 }), verifier.Forged, []verifier.Code{"tpm.quote"}},
		{"altered signature", quote(func(q *evidence.Quote) { q.Signature[20] ^= 1 }), verifier.Forged, []verifier.Code{"tpm.quote"}},
		{"SHA-1 signature", quote(func(q *evidence.Quote) { q.Signature[3] = 4 }), verifier.Forged, []verifier.Code{"tpm.quote"}},
		{"ECDSA signature", quote(func(q *evidence.Quote) { q.Signature[1] = 0x18 }), verifier.Forged, []verifier.Code{"tpm.quote"}},
		{"HMAC signature", quote(func(q *evidence.Quote) { q.Signature[1] = 5 }), verifier.Forged, []verifier.Code{"tpm.quote"}},
		{"no scheme", quote(func(q *evidence.Quote) { q.Signature = []byte{0, 0x10} }), verifier.Forged, []verifier.Code{"tpm.quote"}},
		{"bytes behind the message", quote(func(q *evidence.Quote) { q.Message = append(q.Message, 0) }), verifier.Forged, []verifier.Code{"tpm.quote"}},
		{"bytes behind the signature", quote(func(q *evidence.Quote) { q.Signature = append(q.Signature, 0) }), verifier.Forged, []verifier.Code{"tpm.quote"}},
		{"huge quote", quote(func(q *evidence.Quote) { q.Message = make([]byte, vtpm.MaxQuote+1) }), verifier.Forged, []verifier.Code{"tpm.quote"}},
		{"empty quote", quote(func(q *evidence.Quote) { *q = evidence.Quote{} }), verifier.Forged, []verifier.Code{"tpm.quote"}},
		{"altered value", quote(func(q *evidence.Quote) { q.PCRs[0] ^= 1 }), verifier.Forged, []verifier.Code{"tpm.pcrs"}},
		{"a value too few", quote(func(q *evidence.Quote) { q.PCRs = q.PCRs[32:] }), verifier.Forged, []verifier.Code{"tpm.pcrs"}},
		{"a log without events", func(e *evidence.TPM, _ *verifier.Policy) { e.EventLog = logOf() }, verifier.Forged, []verifier.Code{"tpm.event-log"}},
		{"a log of more events", func(e *evidence.TPM, _ *verifier.Policy) {
			e.EventLog = append(bytes.Clone(e.EventLog), e.EventLog[len(logOf()):]...)
		}, verifier.Forged, []verifier.Code{"tpm.event-log"}},
		{"a log cut off", func(e *evidence.TPM, _ *verifier.Policy) { e.EventLog = e.EventLog[:len(e.EventLog)-1] }, verifier.Forged, []verifier.Code{"tpm.event-log"}},
		{"no log", func(e *evidence.TPM, _ *verifier.Policy) { e.EventLog = nil }, verifier.Mismatch, []verifier.Code{"tpm.policy"}},
		{"no quote", func(e *evidence.TPM, _ *verifier.Policy) { e.Quote, e.EventLog = nil, nil }, verifier.Mismatch, []verifier.Code{"tpm.nonce", "tpm.policy"}},
		{"a log without a quote", func(e *evidence.TPM, _ *verifier.Policy) { e.Quote = nil }, verifier.Malformed, []verifier.Code{"evidence"}},
		{"another question's REPORT_DATA", func(_ *evidence.TPM, p *verifier.Policy) { p.ReportData = new([64]byte) }, verifier.Mismatch, []verifier.Code{"report-data"}},
		{"a TLS connection", func(_ *evidence.TPM, p *verifier.Policy) { p.TLSKey = []byte("key") }, verifier.Forged, []verifier.Code{"tls-key"}},
	} {
		t.Run(tt.name, func(t *testing.T) { judge(t, good, policy, tt) })
	}
	t.Run("a signature over what no TPM made", func(t *testing.T) {
		loose := m.primary(attestationKey(tpm2.TPMAlgRSASSA, false))
		forged := bytes.Clone(good.Quote.Message)
		forged[0] = 0xfe
		sum := sha256.Sum256(forged)
		s, err := tpm2.Sign{
			KeyHandle: named(loose), Digest: tpm2.TPM2BDigest{Buffer: sum[:]},
			InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
		}.Execute(m.tpm)
		if err != nil {
			t.Fatal(err)
		}
		judge(t, good, policy, judged{"", func(e *evidence.TPM, _ *verifier.Policy) {
			e.HCL = hclReport(t, guest, loose, nil)
			e.Quote = &evidence.Quote{Message: forged, Signature: tpm2.Marshal(s.Signature), PCRs: e.Quote.PCRs}
		}, verifier.Forged, []verifier.Code{"tpm.quote"}})
	})
}

// An HCL report without a quote: fresh by the guest's own data in it.
func TestHCLReport(t *testing.T) {
	m := newTPM(t)
	guest, policy := simulated(t)
	nonce := bytes.Repeat([]byte{7}, vtpm.UserDataSize)
	policy.Nonce = nonce
	blob := hclReport(t, guest, m.ak, nonce)
	for _, tt := range []struct {
		name    string
		blob    []byte
		change  func(*verifier.Policy)
		verdict verifier.Verdict
		fails   []verifier.Code
	}{
		{"good", blob, nil, verifier.Verified, nil},
		{"no nonce demanded", blob, func(p *verifier.Policy) { p.Nonce, p.WithoutNonce = nil, true }, verifier.Verified, nil},
		{"another nonce", hclReport(t, guest, m.ak, nonce[1:]), nil, verifier.Mismatch, []verifier.Code{"tpm.nonce"}},
		{"a quote demanded", blob, func(p *verifier.Policy) { p.TPM = &verifier.TPMPolicy{} }, verifier.Mismatch, []verifier.Code{"tpm.policy"}},
		{"without user-data", hclWith(guest, `{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"`+modulus(t, m.ak)+`"}]}`), nil, verifier.Mismatch, []verifier.Code{"tpm.nonce"}},
		{"of the guest's own", hclAt(guest, `{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"`+modulus(t, m.ak)+`"}]}`, 2), func(p *verifier.Policy) {
			p.Nonce, p.WithoutNonce, p.WithoutVMPL = nil, true, true
		}, verifier.Forged, []verifier.Code{"tpm.binding"}},
		{"no AK", hclWith(guest, `{"keys":[]}`), nil, verifier.Malformed, []verifier.Code{"evidence"}},
		{"two AKs", hclWith(guest, `{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"`+modulus(t, m.ak)+`"},{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"`+modulus(t, m.ak)+`"}]}`), nil, verifier.Malformed, []verifier.Code{"evidence"}},
		{"a member twice", hclWith(guest, `{"keys":[],"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"`+modulus(t, m.ak)+`"}]}`), nil, verifier.Malformed, []verifier.Code{"evidence"}},
		{"a weak AK", hclWith(guest, `{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"AQAB"}]}`), nil, verifier.Malformed, []verifier.Code{"evidence"}},
		{"an even exponent", hclWith(guest, `{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAA","n":"`+modulus(t, m.ak)+`"}]}`), nil, verifier.Malformed, []verifier.Code{"evidence"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := policy
			if tt.change != nil {
				tt.change(&p)
			}
			r, _ := verifier.New(nil).Judge(t.Context(), "", tt.blob, p)
			if r.Verdict != tt.verdict || r.Form != verifier.FormHCL {
				t.Errorf("verdict %v of %s", r.Verdict, r.Form)
			}
			if diff := cmp.Diff(tt.fails, failures(r)); diff != "" {
				t.Errorf("failures (-want +got):\n%s", diff)
			}
		})
	}
}

func modulus(t *testing.T, key *tpm2.CreatePrimaryResponse) string {
	t.Helper()
	area, err := key.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	n, err := area.Unique.RSA()
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(n.Buffer)
}

// A software TPM whose EK is bound as an SVSM does it, and whose AK by a
// credential.
func TestTPMOfSVSM(t *testing.T) {
	m := newTPM(t)
	guest, policy := simulated(t)
	nonce := []byte("0123456789abcdef")
	svsm := func(manifest []byte, ak *tpm2.CreatePrimaryResponse) *evidence.SVSM {
		s := &evidence.SVSM{Nonce: append(bytes.Clone(nonce), make([]byte, 48)...), Manifest: manifest, AK: public(ak)}
		report := guest.Report(vtpm.ServiceReportData([64]byte(s.Nonce), manifest), 0)
		s.Report = report[:]
		return s
	}
	// activate makes a credential for two keys, and has the TPM of ek read it.
	activate := func(ek, ak *tpm2.CreatePrimaryResponse) *verifier.TPMCredential {
		c := &verifier.TPMCredential{EK: public(ek), AKName: ak.Name.Buffer}
		_, _ = rand.Read(c.Secret[:]) // never fails, by its documentation
		key, err := vtpm.ParseAK(public(ak))
		if err != nil {
			t.Fatal(err)
		}
		file, err := vtpm.MakeCredential(rand.Reader, public(ek), key, c.Secret)
		if err != nil {
			t.Fatal(err)
		}
		object := file[10:][:binary.BigEndian.Uint16(file[8:])]
		policy, err := tpm2.ActivateCredential{
			ActivateHandle: named(ak),
			KeyHandle:      tpm2.AuthHandle{Handle: ek.ObjectHandle, Name: ek.Name, Auth: endorsementPolicy()},
			CredentialBlob: tpm2.TPM2BIDObject{Buffer: object}, Secret: tpm2.TPM2BEncryptedSecret{Buffer: file[12+len(object):]},
		}.Execute(m.tpm)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(policy.CertInfo.Buffer, c.Secret[:]) {
			t.Fatal("the TPM reads another secret")
		}
		return c
	}
	credential := activate(m.ek, m.ak)
	good := evidence.TPM{
		MediaType: evidence.TPMMediaType, SVSM: svsm(public(m.ek), m.ak),
		Quote: m.quote(m.ak, credential.Secret[:], 4),
	}
	policy.Nonce = nonce
	policy.TPM = &verifier.TPMPolicy{Quoted: []vtpm.PCR{{Bank: vtpm.SHA256, Index: 4}}, Credential: credential}
	with := func(change func(c *verifier.TPMCredential)) func(*evidence.TPM, *verifier.Policy) {
		return func(_ *evidence.TPM, p *verifier.Policy) {
			tpm, c := *p.TPM, *p.TPM.Credential
			change(&c)
			tpm.Credential, p.TPM = &c, &tpm
		}
	}
	ecc := m.primary(eccAttestationKey())
	eccCredential := activate(m.ek, ecc)
	loose := m.primary(attestationKey(tpm2.TPMAlgRSASSA, false))
	for _, tt := range []judged{
		{"good", nil, verifier.Verified, nil},
		{"all services", func(e *evidence.TPM, _ *verifier.Policy) { e.SVSM = svsm(services(public(m.ek)), m.ak) }, verifier.Verified, nil},
		{"ECDSA", func(e *evidence.TPM, p *verifier.Policy) {
			e.SVSM, e.Quote = svsm(public(m.ek), ecc), m.quote(ecc, eccCredential.Secret[:], 4)
			p.TPM = &verifier.TPMPolicy{Quoted: p.TPM.Quoted, Credential: eccCredential}
		}, verifier.Verified, nil},
		{"no quote demanded", func(e *evidence.TPM, p *verifier.Policy) { e.Quote, p.TPM = nil, nil }, verifier.Verified, nil},

		{"no credential", func(_ *evidence.TPM, p *verifier.Policy) { p.TPM = &verifier.TPMPolicy{Quoted: p.TPM.Quoted} }, verifier.Mismatch, []verifier.Code{"tpm.credential"}},
		{"another secret", with(func(c *verifier.TPMCredential) { c.Secret[0] ^= 1 }), verifier.Mismatch, []verifier.Code{"tpm.credential"}},
		{"a credential for another AK", with(func(c *verifier.TPMCredential) { c.AKName = ecc.Name.Buffer }), verifier.Mismatch, []verifier.Code{"tpm.credential"}},
		{"a credential for another EK", with(func(c *verifier.TPMCredential) { c.EK = public(loose) }), verifier.Mismatch, []verifier.Code{"tpm.credential"}},
		{"a quote with the nonce alone", func(e *evidence.TPM, _ *verifier.Policy) { e.Quote = m.quote(m.ak, nonce, 4) }, verifier.Mismatch, []verifier.Code{"tpm.credential"}},
		{"another nonce", func(_ *evidence.TPM, p *verifier.Policy) { p.Nonce = []byte("fedcba9876543210") }, verifier.Mismatch, []verifier.Code{"tpm.nonce"}},
		{"another nonce in the report", func(e *evidence.TPM, _ *verifier.Policy) {
			s := *e.SVSM
			s.Nonce = make([]byte, 64)
			e.SVSM = &s
		}, verifier.Forged, []verifier.Code{"tpm.binding"}},
		{"an AK that signs anything", func(e *evidence.TPM, _ *verifier.Policy) { e.SVSM = svsm(public(m.ek), loose) }, verifier.Forged, []verifier.Code{"tpm.binding"}},
		{"an EK as AK", func(e *evidence.TPM, _ *verifier.Policy) { e.SVSM = svsm(public(m.ek), m.ek) }, verifier.Forged, []verifier.Code{"tpm.binding"}},
		{"an AK as EK", func(e *evidence.TPM, _ *verifier.Policy) { e.SVSM = svsm(public(m.ak), m.ak) }, verifier.Forged, []verifier.Code{"tpm.binding"}},
		{"no AK", func(e *evidence.TPM, _ *verifier.Policy) {
			e.SVSM = svsm(public(m.ek), m.ak)
			e.SVSM.AK = nil
		}, verifier.Forged, []verifier.Code{"tpm.binding"}},
		{"an empty manifest", func(e *evidence.TPM, _ *verifier.Policy) { e.SVSM = svsm(nil, m.ak) }, verifier.Forged, []verifier.Code{"tpm.binding"}},
		{"services without a vTPM", func(e *evidence.TPM, _ *verifier.Policy) { e.SVSM = svsm(services(), m.ak) }, verifier.Forged, []verifier.Code{"tpm.binding"}},
		{"two vTPMs", func(e *evidence.TPM, _ *verifier.Policy) { e.SVSM = svsm(services(public(m.ek), public(m.ek)), m.ak) }, verifier.Forged, []verifier.Code{"tpm.binding"}},
		{"a manifest whose offset overflows", func(e *evidence.TPM, _ *verifier.Policy) {
			manifest := services(public(m.ek))
			binary.LittleEndian.PutUint32(manifest[24+16:], 0xffffffff)
			e.SVSM = svsm(manifest, m.ak)
		}, verifier.Forged, []verifier.Code{"tpm.binding"}},
		{"a manifest of giant count", func(e *evidence.TPM, _ *verifier.Policy) {
			manifest := services(public(m.ek))
			binary.LittleEndian.PutUint32(manifest[20:], 0xffffffff)
			e.SVSM = svsm(manifest, m.ak)
		}, verifier.Forged, []verifier.Code{"tpm.binding"}},
		{"both kinds", func(e *evidence.TPM, _ *verifier.Policy) { e.HCL = hclReport(t, guest, m.ak, nil) }, verifier.Malformed, []verifier.Code{"evidence"}},
		{"no kind", func(e *evidence.TPM, _ *verifier.Policy) { e.SVSM = nil }, verifier.Malformed, []verifier.Code{"evidence"}},
	} {
		t.Run(tt.name, func(t *testing.T) { judge(t, good, policy, tt) })
	}
	t.Run("another TPM reads the credential", func(t *testing.T) {
		key, err := vtpm.ParseAK(public(m.ak))
		if err != nil {
			t.Fatal(err)
		}
		file, err := vtpm.MakeCredential(rand.Reader, public(newTPM(t).ek), key, credential.Secret)
		if err != nil {
			t.Fatal(err)
		}
		object := file[10:][:binary.BigEndian.Uint16(file[8:])]
		if _, err := (tpm2.ActivateCredential{
			ActivateHandle: named(m.ak),
			KeyHandle:      tpm2.AuthHandle{Handle: m.ek.ObjectHandle, Name: m.ek.Name, Auth: endorsementPolicy()},
			CredentialBlob: tpm2.TPM2BIDObject{Buffer: object}, Secret: tpm2.TPM2BEncryptedSecret{Buffer: file[12+len(object):]},
		}).Execute(m.tpm); err == nil {
			t.Error("a credential for another EK is read")
		}
	})
}

// endorsementPolicy is the one that the template of the EK demands.
func endorsementPolicy() tpm2.Session {
	return tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(tpm transport.TPM, handle tpm2.TPMISHPolicy, nonceTPM tpm2.TPM2BNonce) error {
		_, err := tpm2.PolicySecret{AuthHandle: tpm2.TPMRHEndorsement, NonceTPM: nonceTPM, PolicySession: handle}.Execute(tpm)
		return err
	})
}

// services is the manifest of an SVSM with a service of no manifest, and vTPMs.
func services(eks ...[]byte) []byte {
	le := binary.LittleEndian
	vtpmGUID := []byte{0xeb, 0xf1, 0x76, 0xc4, 0x23, 0x01, 0xa5, 0x45, 0x96, 0x41, 0xb4, 0xe7, 0xdd, 0xe5, 0xbf, 0xe3}
	offset := 24 * (2 + len(eks))
	size := offset + len(bytes.Join(eks, nil))
	b := []byte{0xbb, 0x9e, 0x84, 0x63, 0x92, 0x3d, 0x70, 0x46, 0xa1, 0xff, 0x58, 0xf9, 0xc9, 0x4b, 0x87, 0xbb}
	b = le.AppendUint32(le.AppendUint32(b, uint32(size)), uint32(1+len(eks)))
	b = append(b, make([]byte, 16)...)
	b = le.AppendUint32(le.AppendUint32(b, uint32(offset)), 0)
	for _, ek := range eks {
		b = append(b, vtpmGUID...)
		b = le.AppendUint32(le.AppendUint32(b, uint32(offset)), uint32(len(ek)))
		offset += len(ek)
	}
	return append(b, bytes.Join(eks, nil)...)
}
