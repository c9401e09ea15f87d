package probe

import (
	"fmt"

	"github.com/kraudcloud/kattest/measure"
)

// KnownImage is a published firmware image that has been probed.
type KnownImage struct {
	SHA256  string
	Name    string // the package and the file in it
	Version string // the package's
	Verdict Verdict
	How     string // how the verdict was come by
}

func (k KnownImage) String() string {
	return fmt.Sprintf("%s, %s, %s", k.Name, k.Version, k.How)
}

// BootStack is the SHA-256 of the firmware that 'kattest build' makes from the
// sources of this module: of another one there, it is another.
const BootStack = "ad059e53f3425bf5111adcee0127a478ee422be521a04a934e6547212e55e81a"

// KnownImages returns the table of known images. internal/firmwares and internal/e2e
// probe them anew.
func KnownImages() []KnownImage {
	const how = "probed with QEMU 10.0.2 under TCG"
	return []KnownImage{
		{BootStack, "kattest boot stack, OVMF.fd", "edk2 2025.02-8+deb13u1", Enforced, how},
		{"3e4fd0b3fe3b2dbe481c3d9e99418a034174f26cbe1f55aa212b0f18c12d2d6f", "Debian ovmf-amdsev, OVMF.amdsev.fd", "2026.08+ds-2", NotEnforced, how},
		{"6a3e8f438ad7269f5dfd884647587b88391fb23965bb3aa7902b519438dba129", "Debian ovmf-generic, OVMF.fd", "2026.08+ds-2", NotEnforced, how},
		{"2f88d4dc4c4d8391acd9848b582aac434061c3480c30d3414af86a6ff8d5e620", "Debian ovmf-legacy, OVMF.legacy.fd", "2026.08+ds-2", NotEnforced, how},
	}
}

// Known looks an image up in the table.
func Known(firmware measure.Hash) (KnownImage, bool) {
	for _, k := range KnownImages() {
		if k.SHA256 == firmware.String() {
			return k, true
		}
	}
	return KnownImage{}, false
}
