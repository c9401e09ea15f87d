package simpsp

import (
	"errors"
	"fmt"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/idblock"
)

// Status is what the firmware answers to a command.
// Source: Linux 6.12, include/uapi/linux/psp-sev.h, sev_ret_code.
type Status int

// The statuses with which SNP_LAUNCH_FINISH refuses an ID block. That another
// LD gives 11 and another POLICY 7 was seen by others on hardware; which of
// several causes it names first is a guess.
const (
	PolicyFailure  Status = 7
	BadSignature   Status = 10
	BadMeasurement Status = 11
)

// String returns QEMU's text. Source: QEMU 10.0.2, target/i386/sev.c, sev_fw_errlist.
func (s Status) String() string {
	switch s {
	case PolicyFailure:
		return "Policy is not allowed"
	case BadSignature:
		return "Bad signature"
	case BadMeasurement:
		return "Bad measurement"
	default:
		return fmt.Sprintf("status %d", int(s))
	}
}

// LaunchError says that SNP_LAUNCH_FINISH refused a launch.
type LaunchError struct {
	Status Status
	Err    error
}

func (e *LaunchError) Error() string {
	return fmt.Sprintf("SNP_LAUNCH_FINISH: fw_error=%d '%v': %v", int(e.Status), e.Status, e.Err)
}

func (e *LaunchError) Unwrap() error { return e.Err }

// LaunchID is Launch with an ID block. It refuses, with a *LaunchError, what the
// firmware refuses: a signature that does not hold, and another launch digest
// or policy than the block's.
func (p *PSP) LaunchID(measurement [48]byte, hostData [32]byte, policy uint64, id idblock.Signed) (*Guest, error) {
	if err := id.Verify(); err != nil {
		return nil, &LaunchError{BadSignature, err}
	}
	switch err := id.Block.Match(measure.Digest(measurement), policy); {
	case errors.Is(err, idblock.ErrMeasurement):
		return nil, &LaunchError{BadMeasurement, err}
	case err != nil:
		return nil, &LaunchError{PolicyFailure, err}
	}
	g := p.Launch(measurement, hostData, policy)
	g.idBlock = &id
	return g, nil
}

// putIDBlock writes what the ID block adds to a report.
func putIDBlock(report []byte, id idblock.Signed) {
	block := id.Block.Encode()
	copy(report[0x004:0x008], block[0x54:]) // GUEST_SVN
	copy(report[0x010:0x030], block[0x30:]) // FAMILY_ID, IMAGE_ID
	digest := id.Auth.IDKey.Digest()
	copy(report[0x0e0:], digest[:])
	if id.Auth.HasAuthor() {
		digest = id.Auth.AuthorKey.Digest()
		copy(report[0x110:], digest[:])
		report[0x048] |= 1 // AUTHOR_KEY_EN
	}
}
