package verifier_test

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/measure/idblock"
	"github.com/kraudcloud/kattest/verifier"
)

// oid returns the identifier of one of AMD's extensions: 1.3.6.1.4.1.3704.1
// and what is named, such as 3.1.
func oid(name string) asn1.ObjectIdentifier {
	id := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}
	for _, arc := range strings.Split(name, ".") {
		n, err := strconv.Atoi(arc)
		if err != nil {
			panic(err)
		}
		id = append(id, n)
	}
	return id
}

// der encodes a value of an extension.
func (l *lab) der(value any) []byte {
	b, err := asn1.Marshal(value)
	if err != nil {
		l.Fatal(err)
	}
	return b
}

func ia5(s string) asn1.RawValue { return asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(s)} }

// extensions are those of the machine's leaf, in AMD's order.
func (m machine) extensions(l *lab) []pkix.Extension {
	var all []pkix.Extension
	add := func(name string, value any) { all = append(all, pkix.Extension{Id: oid(name), Value: l.der(value)}) }
	tcb := m.tcb()
	add("1", map[bool]int{true: 1}[m.product == verifier.Turin])
	add("2", ia5(m.product.String()+"-B0"))
	if m.product == verifier.Turin {
		add("3.9", int(tcb.FMC))
	}
	add("3.1", int(tcb.Bootloader))
	add("3.2", int(tcb.TEE))
	if m.product != verifier.Turin {
		add("3.4", 0)
	}
	add("3.5", 0)
	add("3.6", 0)
	add("3.7", 0)
	add("3.3", int(tcb.SNP))
	add("3.8", int(tcb.Microcode))
	if m.key == verifier.VLEK {
		add("5", ia5(labCSPID))
		return all
	}
	id := m.chip()
	return append(all, pkix.Extension{Id: oid("4"), Value: id[:m.product.HWIDSize()]})
}

// GUIDs of certificates, in the order of their text. Source: AMD 56421 rev 2.03
// (GHCB), section 4.1.8.1, table 7.
var (
	slotVCEK = verifier.GUID{0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd}
	slotVLEK = verifier.GUID{0xa8, 0x07, 0x4b, 0xc2, 0xa2, 0x5a, 0x48, 0x3e, 0xaa, 0xe6, 0x39, 0xc0, 0x45, 0xa0, 0xb8, 0xa1}
	slotASK  = verifier.GUID{0x4a, 0xb7, 0xb3, 0x79, 0xbb, 0xac, 0x4f, 0xe4, 0xa0, 0x2f, 0x05, 0xae, 0xf3, 0x27, 0xc7, 0x82}
)

// table lays a certificate table out.
func table(entries ...verifier.CertificateEntry) []byte {
	b := make([]byte, 24*(len(entries)+1))
	for i, e := range entries {
		copy(b[24*i:], e.GUID[:])
		binary.LittleEndian.PutUint32(b[24*i+16:], uint32(len(b)))
		binary.LittleEndian.PutUint32(b[24*i+20:], uint32(len(e.Data)))
		b = append(b, e.Data...)
	}
	return b
}

// slot is where a machine's leaf belongs.
func (m machine) slot() verifier.GUID {
	if m.key == verifier.VLEK {
		return slotVLEK
	}
	return slotVCEK
}

// withTable is a machine's report with its leaf behind it.
func (l *lab) withTable(m machine) []byte {
	return append(l.report(m), table(verifier.CertificateEntry{GUID: m.slot(), Data: l.leaf(m).Raw})...)
}

// policy demands of a machine's report everything that can be demanded, and
// exactly what the lab's reports hold.
func (l *lab) policy(m machine) verifier.Policy {
	tcb, requirePlatform := m.tcb(), labPlatform
	demand := verifier.ProductPolicy{Reported: tcb, Committed: tcb, Launch: tcb, Firmware: labFirmware}
	if m.version >= 5 {
		demand.LaunchMitigations, demand.CurrentMitigations = labMitigations, labMitigations
	}
	p := verifier.Policy{
		Time: labTime, VCEK: l.leaf(m), Products: map[verifier.Product]verifier.ProductPolicy{m.product: demand},
		RequiredPlatform: requirePlatform, ForbiddenPlatform: verifier.PlatformTSME,
		References: []verifier.Reference{{Measurement: labMeasurement, VCPUs: 1, Label: "the lab's", RequiredBits: verifier.PolicySMT}}, VCPUs: 1,
		ReportData: &labReportData, HostData: &labHostData,
		ForbiddenBits: verifier.PolicySingleSocket, MinimumABI: verifier.ABIVersion{Major: 1, Minor: 0x37},
		IDKeys: []idblock.KeyDigest{labIDKey}, AuthorKeys: []idblock.KeyDigest{labAuthorKey},
		FamilyID: &[16]byte{1}, ImageID: &[16]byte{2}, MinimumGuestSVN: 7,
	}
	if m.key == verifier.VCEK {
		p.Chips = [][64]byte{m.chip()}
	} else {
		p.CSPIDs = []string{labCSPID}
	}
	if l.prefix == asSimulated {
		p.Simulated = l.chain(m)
	} else {
		p.CRLs = append(p.CRLs, l.crl(m.product))
	}
	return p
}

// What the lab's guest answers with, and the connection's key.
var (
	labNonce  = []byte("0123456789abcdef")
	labTLSKey = []byte("a SubjectPublicKeyInfo")
	labExport = []byte("exported keying material of 32 b")
	labEvents = []evidence.Event{{Name: "boot", Value: "done"}, {Name: "workload", Value: "started"}}
)

// evidence is a machine's answer to a challenge, after change.
func (l *lab) evidence(m machine, change ...func(*evidence.Evidence)) []byte {
	l.Helper()
	e := evidence.Evidence{MediaType: evidence.MediaType, Nonce: labNonce, PublicKey: labTLSKey, Exporter: labExport, Events: slices.Clone(labEvents)}
	bound := e.ReportData()
	e.Report = l.report(m, func(b []byte) { copy(b[0x050:], bound[:]) })
	e.Certificates = table(verifier.CertificateEntry{GUID: m.slot(), Data: l.leaf(m).Raw})
	for _, c := range change {
		c(&e)
	}
	b, err := json.Marshal(e)
	if err != nil {
		l.Fatal(err)
	}
	return b
}

// evidencePolicy is policy for evidence: it demands nonce, key and connection.
func (l *lab) evidencePolicy(m machine) verifier.Policy {
	p := l.policy(m)
	p.VCEK, p.ReportData, p.Nonce, p.TLSKey, p.TLSExporter = nil, nil, labNonce, labTLSKey, labExport
	return p
}
