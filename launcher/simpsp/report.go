package simpsp

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"encoding/binary"
	"math/big"
	"slices"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/measure/idblock"
)

// What the simulated machine is: an EPYC 7003 (Milan), stepping B1, with the
// security patch levels of SNP firmware 1.55.29.
const (
	productName  = "Milan-B0" // KDS names a B1 so as well
	cpuFamily    = 0x19
	cpuModel     = 0x01
	cpuStepping  = 0x01
	fwMajor      = 1
	fwMinor      = 55
	fwBuild      = 29
	platformInfo = 1<<0 /* SMT_EN */ | 1<<2 /* ECC_EN */ | 1<<5 /* ALIAS_CHECK_COMPLETE */
)

const (
	reportVersion   = 3
	algoECDSAP384   = 1     // SIGNATURE_ALGO: ECDSA P-384 with SHA-384
	signatureOffset = 0x2a0 // what comes before is signed
	scalarSize      = 72    // R and S, little-endian, zero-padded
)

// tcbVersion is a TCB_VERSION of a processor before Turin:
//
//	offset  size  field
//	0x0     1     BOOT_LOADER
//	0x1     1     TEE
//	0x2     4     reserved
//	0x6     1     SNP
//	0x7     1     MICROCODE
type tcbVersion struct{ Bootloader, TEE, SNP, Microcode byte }

func (t tcbVersion) encode() uint64 {
	return uint64(t.Bootloader) | uint64(t.TEE)<<8 | uint64(t.SNP)<<48 | uint64(t.Microcode)<<56
}

// tcb is that of the VCEK; the machine's four TCBs are all this one. It is at
// what AMD-SB-3030 asks of a Milan (2026-05-12), as is the verifier's default.
var tcb = tcbVersion{Bootloader: 4, TEE: 0, SNP: 29, Microcode: 222}

// Guest is one launched guest, with a REPORT_ID of its own.
type Guest struct {
	psp         *PSP
	measurement [48]byte
	hostData    [32]byte
	policy      uint64
	id          [32]byte
	idBlock     *idblock.Signed
}

// Launch stands for SNP_LAUNCH_START to SNP_LAUNCH_FINISH: the caller says what
// a real processor would have measured and been given.
func (p *PSP) Launch(measurement [48]byte, hostData [32]byte, policy uint64) *Guest {
	g := &Guest{psp: p, measurement: measurement, hostData: hostData, policy: policy}
	_, _ = rand.Read(g.id[:]) // never fails, by its documentation
	return g
}

// Report returns an attestation report over reportData for the given VMPL,
// signed by the VCEK.
//
// ATTESTATION_REPORT, version 3. Source: AMD 56860, section 7.3, and genuine
// reports. What is not listed is zero: no migration agent. The ID block's fields
// are zero where there is none.
//
//	offset  size  field
//	0x000   4     VERSION, 3
//	0x004   4     GUEST_SVN, of the ID block
//	0x008   8     POLICY
//	0x010   16    FAMILY_ID, of the ID block
//	0x020   16    IMAGE_ID, of the ID block
//	0x030   4     VMPL
//	0x034   4     SIGNATURE_ALGO, 1
//	0x038   8     CURRENT_TCB
//	0x040   8     PLATFORM_INFO
//	0x048   4     bits 4:2 SIGNING_KEY (0 is the VCEK), 1 MASK_CHIP_KEY, 0 AUTHOR_KEY_EN
//	0x050   64    REPORT_DATA
//	0x090   48    MEASUREMENT
//	0x0c0   32    HOST_DATA
//	0x0e0   48    ID_KEY_DIGEST, of the ID block
//	0x110   48    AUTHOR_KEY_DIGEST, of the ID block
//	0x140   32    REPORT_ID
//	0x160   32    REPORT_ID_MA, all ones: no migration agent
//	0x180   8     REPORTED_TCB
//	0x188   3     CPUID_FAM_ID, CPUID_MOD_ID, CPUID_STEP
//	0x1a0   64    CHIP_ID
//	0x1e0   8     COMMITTED_TCB
//	0x1e8   3     CURRENT_BUILD, CURRENT_MINOR, CURRENT_MAJOR
//	0x1ec   3     COMMITTED_BUILD, COMMITTED_MINOR, COMMITTED_MAJOR
//	0x1f0   8     LAUNCH_TCB
//	0x2a0   512   SIGNATURE: R and S of 72 bytes each over 0x000 to 0x29f
func (g *Guest) Report(reportData [64]byte, vmpl uint32) [port.ReportSize]byte {
	var b [port.ReportSize]byte
	le := binary.LittleEndian
	le.PutUint32(b[0x000:], reportVersion)
	le.PutUint64(b[0x008:], g.policy)
	le.PutUint32(b[0x030:], vmpl)
	le.PutUint32(b[0x034:], algoECDSAP384)
	le.PutUint64(b[0x040:], platformInfo)
	copy(b[0x050:0x090], reportData[:])
	copy(b[0x090:0x0c0], g.measurement[:])
	copy(b[0x0c0:0x0e0], g.hostData[:])
	copy(b[0x140:0x160], g.id[:])
	for i := 0x160; i < 0x180; i++ {
		b[i] = 0xff
	}
	copy(b[0x188:0x18b], []byte{cpuFamily, cpuModel, cpuStepping})
	copy(b[0x1a0:0x1e0], g.psp.hwid[:])
	for _, offset := range []int{0x038, 0x180, 0x1e0, 0x1f0} {
		le.PutUint64(b[offset:], tcb.encode())
	}
	for _, offset := range []int{0x1e8, 0x1ec} {
		copy(b[offset:], []byte{fwBuild, fwMinor, fwMajor})
	}
	if g.idBlock != nil {
		putIDBlock(b[:], *g.idBlock)
	}

	digest := sha512.Sum384(b[:signatureOffset])
	r, s, err := ecdsa.Sign(rand.Reader, g.psp.key, digest[:])
	if err != nil {
		panic("simpsp: signing: " + err.Error()) // not with a key that parsed
	}
	putScalar(b[signatureOffset:], r)
	putScalar(b[signatureOffset+scalarSize:], s)
	return b
}

func putScalar(b []byte, n *big.Int) {
	le := n.FillBytes(make([]byte, scalarSize))
	slices.Reverse(le)
	copy(b, le)
}

// GUIDs of certificate-table entries, in the byte order of their text.
// Source: AMD 56421 rev 2.03 (GHCB), section 4.1.8.1.
var (
	guidVCEK = [16]byte{0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd}
	guidASK  = [16]byte{0x4a, 0xb7, 0xb3, 0x79, 0xbb, 0xac, 0x4f, 0xe4, 0xa0, 0x2f, 0x05, 0xae, 0xf3, 0x27, 0xc7, 0x82}
	guidARK  = [16]byte{0xc0, 0xb4, 0x06, 0xa4, 0xa8, 0x03, 0x49, 0x52, 0x97, 0x43, 0x3f, 0xb6, 0x01, 0x4c, 0xd0, 0xae}
)

// Certificates returns the GHCB certificate table: VCEK, ASK and ARK, in DER.
//
//	offset  size  field
//	0x00    16    GUID of the first entry
//	0x10    4     its certificate's offset in the table, little-endian
//	0x14    4     its certificate's length, bytes, little-endian
//	0x18    …     the other entries, then 24 zero bytes, then the certificates
func (g *Guest) Certificates() []byte {
	const entrySize = 24
	certs := []struct {
		guid [16]byte
		der  []byte
	}{{guidVCEK, g.psp.vcek.Raw}, {guidASK, g.psp.ask.Raw}, {guidARK, g.psp.ark.Raw}}
	table := make([]byte, entrySize*(len(certs)+1))
	for i, c := range certs {
		entry := table[i*entrySize:]
		copy(entry, c.guid[:])
		binary.LittleEndian.PutUint32(entry[0x10:], uint32(len(table)))
		binary.LittleEndian.PutUint32(entry[0x14:], uint32(len(c.der)))
		table = append(table, c.der...)
	}
	return table
}
