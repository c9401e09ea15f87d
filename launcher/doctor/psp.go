package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Commands of the secure processor's driver, and the sizes of their answers.
// Source: Linux 6.12, include/uapi/linux/psp-sev.h.
const (
	commandPlatformStatus    = 1
	commandSNPPlatformStatus = 9

	platformStatusSize    = 12
	snpPlatformStatusSize = 32
)

// The first firmware with which Linux initialises SNP.
// Source: Linux 6.12, drivers/crypto/ccp/sev-dev.c, SNP_MIN_API_MAJOR.
const minFirmwareMajor, minFirmwareMinor = 1, 51

const fixFirmware = "update the BIOS, or put AMD's newest amd_sev_fam*.sbin for this processor into /lib/firmware/amd and boot again"

// platformStatus is the answer to PLATFORM_STATUS.
//
//	offset  size  field
//	0       1     api_major
//	1       1     api_minor
//	2       1     state: 0 uninitialised, 1 initialised, 2 working
//	3       4     flags
//	7       1     build
//	8       4     guest_count
//
// Source: Linux 6.12, include/uapi/linux/psp-sev.h, struct sev_user_data_status.
type platformStatus [platformStatusSize]byte

// snpStatus is the answer to SNP_PLATFORM_STATUS.
//
//	offset  size  field
//	0       1     api_major
//	1       1     api_minor
//	2       1     state: 0 uninitialised, 1 initialised
//	3       1     bit 0: the RMP is initialised; bit 1: the alias check is complete
//	4       4     build_id
//	8       4     bit 0: chip IDs are masked; bit 1: the chip key is masked; bit 2: VLEK
//	12      4     guest_count
//	16      8     current_tcb
//	24      8     reported_tcb
//
// Source: AMD 56860, SNP_PLATFORM_STATUS; struct sev_user_data_snp_status.
type snpStatus [snpPlatformStatusSize]byte

func (s snpStatus) current() uint64  { return binary.LittleEndian.Uint64(s[16:]) }
func (s snpStatus) reported() uint64 { return binary.LittleEndian.Uint64(s[24:]) }

func (e exam) psp() finding {
	if _, err := encryption(e.host); errors.Is(err, errNotAMD) {
		return skip("cpu")
	}
	return e.device(e.want.SEVDevice, fail("load the ccp module ('modprobe ccp'); where it is loaded, enable the secure processor (PSP) and SMEE in the BIOS, and see 'dmesg | grep -i ccp'", ""))
}

func (e exam) platformStatus() (platformStatus, error) {
	b, err := e.host.PSP(e.want.SEVDevice, commandPlatformStatus, platformStatusSize)
	if err == nil && len(b) != platformStatusSize {
		err = fmt.Errorf("PLATFORM_STATUS: %d bytes, want %d", len(b), platformStatusSize)
	}
	if err != nil {
		return platformStatus{}, err
	}
	return platformStatus(b), nil
}

// withStatus makes a check of PLATFORM_STATUS.
func (e exam) withStatus(judge func(platformStatus) finding) finding {
	if e.psp().outcome != Pass {
		return skip("psp")
	}
	s, err := e.platformStatus()
	if err != nil {
		return unknown("see 'dmesg | grep -i ccp'", err)
	}
	return judge(s)
}

func (e exam) pspFirmware() finding {
	return e.withStatus(func(s platformStatus) finding {
		recent := s[0] > minFirmwareMajor || s[0] == minFirmwareMajor && s[1] >= minFirmwareMinor
		return passIf(recent, fixFirmware, "%d.%d, build %d; %d.%d or later is wanted", s[0], s[1], s[7], minFirmwareMajor, minFirmwareMinor)
	})
}

// pspState tells of SEV before SNP, which SNP guests do not need.
func (e exam) pspState() finding {
	return e.withStatus(func(s platformStatus) finding {
		switch s[2] {
		case 0:
			return warn("SEV-SNP guests do not need it; for SEV guests take ccp.psp_init_on_probe=0 off the kernel's command line", "uninitialised")
		case 1:
			return pass("initialised")
		case 2:
			return pass("working, %d guests", binary.LittleEndian.Uint32(s[8:]))
		}
		return warn(fixFirmware, "unknown state %d", s[2])
	})
}

// withSNP makes a check of SNP_PLATFORM_STATUS.
func (e exam) withSNP(judge func(snpStatus) finding) finding {
	if e.psp().outcome != Pass {
		return skip("psp")
	}
	b, err := e.host.PSP(e.want.SEVDevice, commandSNPPlatformStatus, snpPlatformStatusSize)
	if err == nil && len(b) != snpPlatformStatusSize {
		err = fmt.Errorf("SNP_PLATFORM_STATUS: %d bytes, want %d", len(b), snpPlatformStatusSize)
	}
	if err != nil {
		return unknown("Linux answers from 6.11 on; see 'dmesg | grep -i -e ccp -e sev'", err)
	}
	return judge(snpStatus(b))
}

func (e exam) snpState() finding {
	return e.withSNP(func(s snpStatus) finding {
		if s[2] > 1 {
			return warn(fixFirmware, "unknown state %d", s[2])
		}
		return passIf(s[2] == 1, "see the failures above it; then load kvm_amd again ('modprobe -r kvm_amd && modprobe kvm_amd')",
			"%s, %d guests", []string{"uninitialised", "initialised"}[s[2]], binary.LittleEndian.Uint32(s[12:]))
	})
}

func (e exam) snpRMP() finding {
	return e.withSNP(func(s snpStatus) finding {
		state := "the secure processor has not initialised the RMP"
		if s[3]&1 != 0 {
			state = "initialised"
		}
		return passIf(s[3]&1 != 0, fixRMP+"; where that is done, see the failures above it", "%s", state)
	})
}

// snpAliasCheck is the cure of CVE-2024-21944 (AMD-SB-3015): memory modules that
// give one cell two addresses.
func (e exam) snpAliasCheck() finding {
	return e.withSNP(func(s snpStatus) finding {
		if s[3]&2 != 0 {
			return pass("complete")
		}
		return warn("update BIOS and secure processor's firmware (AMD-SB-3015, CVE-2024-21944): a verifier refuses this host by default",
			"the secure processor has not looked for memory with two addresses")
	})
}

func (e exam) snpTCB() finding {
	return e.withSNP(func(s snpStatus) finding {
		family, _, err := e.signature()
		if err != nil {
			return unknown(fixCPU, err)
		}
		current, reported := s.current(), s.reported()
		switch {
		case current == 0:
			return warn(fixFirmware, "none")
		case current != reported:
			return warn("reports say the lower one: it was set so (SNP_CONFIG), as until all hosts have the newer firmware",
				"%s; reported as %s", tcb(current, family), tcb(reported, family))
		}
		return pass("%s", tcb(current, family))
	})
}

// tcb spells a TCB_VERSION. Turin has a part more, and another order.
// Source: AMD 56860 rev 1.58, section 2.2 (TCB_VERSION).
func tcb(v uint64, family uint32) string {
	at := func(i int) uint64 { return v >> (8 * i) & 0xff }
	if family >= 0x1a {
		return fmt.Sprintf("fmc=%d,bootloader=%d,tee=%d,snp=%d,microcode=%d", at(0), at(1), at(2), at(3), at(7))
	}
	return fmt.Sprintf("bootloader=%d,tee=%d,snp=%d,microcode=%d", at(0), at(1), at(6), at(7))
}

func (e exam) snpChipKey() finding {
	return e.withSNP(func(s snpStatus) finding {
		const fix = "clear it (SNP_CONFIG, as 'snphost config set' does): a verifier cannot judge such a host's reports"
		switch masks := binary.LittleEndian.Uint32(s[8:]); {
		case masks&2 != 0:
			return warn(fix, "masked: reports are not signed by the chip's key")
		case masks&1 != 0:
			return warn(fix, "used; chip IDs are masked: the VCEK's certificate cannot be found by a report")
		case masks&4 != 0:
			return pass("a VLEK is loaded beside it")
		}
		return pass("used")
	})
}
