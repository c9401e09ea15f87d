package igvm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/idblock"
)

// IDBlock is the ID block of a file and what authenticates it, as QEMU hands
// them to the firmware.
type IDBlock struct {
	Header HeaderRef
	Block  idblock.Block
	Auth   idblock.Auth
}

// snpIDBlock takes in an SNP_ID_BLOCK. QEMU makes of it, and of the guest policy,
// the ID block and the ID authentication information of the SEV-SNP ABI.
//
//	offset  size  field
//	0x000   4     compatibility mask
//	0x004   1     author key enabled; QEMU looks at the key instead
//	0x005   3     reserved
//	0x008   48    LD
//	0x038   16    FAMILY_ID
//	0x048   16    IMAGE_ID
//	0x058   4     VERSION, 1
//	0x05c   4     GUEST_SVN
//	0x060   4     ID_KEY_ALGO, 1
//	0x064   4     AUTHOR_KEY_ALGO, 1
//	0x068   144   signature of the ID block: R, S of 72 bytes each
//	0x0f8   152   ID key: u32 curve, u32 reserved, QX, QY of 72 bytes each
//	0x190   144   signature of the ID key
//	0x220   152   author's key, as the ID key; zeros where there is none
//
// The reserved field of a key is not part of what the firmware sees, nor of what
// the author signs. Numbers, coordinates and scalars are little-endian.
// Source: microsoft/igvm e6c3ff1c, IGVM_VHS_SNP_ID_BLOCK; QEMU backends/igvm.c,
// qigvm_directive_snp_id_block.
func (p *parser) snpIDBlock(h header) error {
	if h.u32(0)&p.snp == 0 {
		return nil
	}
	if p.file.idBlock != nil {
		return &FormatError{Header: &h.HeaderRef, Reason: "a second ID block for SEV-SNP: loaders differ in which one counts"}
	}
	if err := h.zero("reserved", 5, 3); err != nil {
		return err
	}
	if version := h.u32(0x58); version != 1 {
		return h.bad("VERSION", 0x58, 4, "%d, want 1", version)
	}
	author := h.u32(0x220) != 0 // as QEMU tells, but of the curve's first byte alone
	if enabled := h.body[4]; enabled > 1 || author != (enabled == 1) {
		return h.bad("author key enabled", 4, 1, "%d, and the author's key has curve %d", enabled, h.u32(0x220))
	}
	auth, err := idblock.ParseAuth(h.auth(author))
	if err != nil {
		return &FormatError{Header: &h.HeaderRef, Reason: err.Error()}
	}
	b := idblock.Block{
		Measurement: measure.Digest(h.body[0x08:]),
		FamilyID:    [16]byte(h.body[0x38:]),
		ImageID:     [16]byte(h.body[0x48:]),
		GuestSVN:    h.u32(0x5c),
	}
	if p.file.policy != nil {
		b.Policy = *p.file.policy
	}
	p.file.idBlock = &IDBlock{Header: h.HeaderRef, Block: b, Auth: auth}
	return nil
}

// auth returns the ID authentication information that QEMU makes of the header.
// AUTHOR_KEY_ALGO is left out where there is no author, as the firmware does not
// look at it then.
func (h header) auth(author bool) []byte {
	b := make([]byte, idblock.AuthSize)
	key := func(at, from int) {
		copy(b[at:at+4], h.body[from:])
		copy(b[at+4:at+4+144], h.body[from+8:])
	}
	binary.LittleEndian.PutUint32(b[0x000:], h.u32(0x60))
	copy(b[0x040:0x040+144], h.body[0x68:])
	key(0x240, 0xf8)
	copy(b[0x680:0x680+144], h.body[0x190:])
	key(0x880, 0x220)
	if author {
		binary.LittleEndian.PutUint32(b[0x004:], h.u32(0x64))
	}
	return b
}

// ErrNoPolicy says that a file has an ID block but no guest policy: the block is
// then for policy 0, with which no guest is launched.
var ErrNoPolicy = errors.New("an ID block without a GUEST_POLICY: the firmware would refuse the launch")

// Check holds a launch digest against the file's ID block, and checks the
// block's signatures. A file without one has nothing to check. Errors are those
// of idblock.Block.Match and idblock.Auth.Verify, and ErrNoPolicy, joined.
func (f *File) Check(measurement measure.Digest) error {
	b := f.idBlock
	if b == nil {
		return nil
	}
	var errs []error
	if f.policy == nil {
		errs = append(errs, ErrNoPolicy)
	}
	errs = append(errs, b.Block.Match(measurement, b.Block.Policy), b.Auth.Verify(b.Block))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("IGVM file: %v: %w", b.Header, err)
	}
	return nil
}
