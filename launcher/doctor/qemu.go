package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
)

const fixQEMU = "install QEMU 9.1 or later (Debian: qemu-system-x86 of bookworm-backports, trixie or later)"

func (e exam) qemu() finding {
	out, err := e.host.QEMU(e.ctx, "--version")
	if err != nil {
		return fail(fixQEMU, "%v", err)
	}
	line, _, _ := strings.Cut(out, "\n")
	_, version, ok := strings.Cut(line, "version ")
	if !ok || len(version) > 200 {
		return fail(fixQEMU, "%s --version says %.100q", QEMU, line)
	}
	return pass("%s", strings.TrimSpace(version))
}

func (e exam) qemuSNP() finding {
	return e.qemuHas("sev-snp-guest", fixQEMU, "-object", "help")
}

func (e exam) qemuCPU() finding {
	fix := fmt.Sprintf("install a QEMU that has it, or choose another CPU model of '%s -cpu help': the launch digest changes with it", QEMU)
	return e.qemuHas(e.want.CPU, fix, "-cpu", "help")
}

// qemuHas looks for a word in what QEMU answers.
func (e exam) qemuHas(word, fix string, question ...string) finding {
	out, err := e.host.QEMU(e.ctx, question...)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return skip("qemu")
	}
	if err != nil {
		return fail(fixQEMU, "%v", err)
	}
	for _, w := range strings.Fields(out) {
		if w == word {
			return pass("%s", word)
		}
	}
	return fail(fix, "no %s", word)
}

const fixStack = "'kattest build --out DIR' makes a boot stack whose firmware has it; of Debian's, ovmf-amdsev alone does"

func (e exam) firmware() finding {
	f, err := e.host.Firmware(e.want.Firmware)
	if errors.Is(err, fs.ErrNotExist) {
		return fail("build a boot stack ('kattest build --out DIR') and name it with --stack DIR", "%s is not there", e.want.Firmware)
	}
	if err != nil {
		return fail(fixStack, "%v", err)
	}
	if !f.SNP {
		return fail(fixStack, "QEMU cannot launch it with SEV-SNP: %s", strings.Join(f.Problems, "; "))
	}
	return pass("%s", e.want.Firmware)
}

func (e exam) hashTable() finding {
	f, err := e.host.Firmware(e.want.Firmware)
	if err != nil {
		return skip("firmware")
	}
	if f.HashTable == 0 {
		return fail(fixStack, "no place for the SEV hash table: QEMU stops at kernel-hashes=on")
	}
	return pass("at %#x", f.HashTable)
}

func (e exam) kernelHashes() finding {
	f, err := e.host.Firmware(e.want.Firmware)
	if err != nil {
		return skip("firmware")
	}
	if !f.KernelHashes {
		return fail(fixStack, "no KERNEL_HASHES section around the hash table: %s", strings.Join(f.Problems, "; "))
	}
	return pass("a section that is measured")
}
