package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/kraudcloud/kattest/measure"
)

// kind is a way of launching that some peers know.
type kind struct {
	profile string
	mode    string // of sev-snp-measure
	vmm     string // of sev-snp-measure
	peers   []string
	hashes  bool // of a kernel, or a page for them
	product string
}

// kinds are the ways. Peers that read a page for kernel hashes are asked about
// firmware with one; GCE's and the Go peer know none.
func kinds() []kind {
	return []kind{
		{profile: "qemu@6.11", mode: "snp", vmm: "QEMU", peers: []string{"python", "rust"}, hashes: true},
		{profile: "qemu@6.11", mode: "snp", vmm: "QEMU", peers: []string{"python", "rust", "go"}},
		{profile: "ec2@2026", mode: "snp", vmm: "ec2", peers: []string{"python"}},
		{profile: "ec2@2023", mode: "snp", vmm: "ec2", peers: []string{"rust", "go"}},
		{profile: "gce@milan", mode: "snp", vmm: "gce", peers: []string{"gce", "python"}, product: "EPYC-Milan"},
		{profile: "gce@genoa", mode: "snp", vmm: "gce", peers: []string{"gce"}, product: "EPYC-Genoa"},
		{profile: "qemu-sev@4.16", mode: "sev", vmm: "QEMU", peers: []string{"python", "rust"}, hashes: true},
		{profile: "qemu-sev-es@6.10", mode: "seves", vmm: "QEMU", peers: []string{"python", "rust"}, hashes: true},
	}
}

func peerNames() []string { return []string{"python", "rust", "go", "gce"} }

// models are those that all peers know by name.
func models() []string {
	return []string{
		"EPYC", "EPYC-v1", "EPYC-v2", "EPYC-v3", "EPYC-v4", "EPYC-IBPB", "EPYC-Rome", "EPYC-Rome-v1", "EPYC-Rome-v2",
		"EPYC-Rome-v3", "EPYC-Milan", "EPYC-Milan-v1", "EPYC-Milan-v2", "EPYC-Genoa", "EPYC-Genoa-v1",
	}
}

// launch is what is measured.
type launch struct {
	kind     kind
	firmware []byte
	kernel   []byte // nil: kernel hashes are off
	initrd   []byte // nil: none
	cmdline  string
	vcpus    int
	model    string
	features uint64
}

// newLaunch returns launch i of those of a seed.
func newLaunch(seed uint64, i int) launch {
	r := rand.New(rand.NewPCG(seed, uint64(i)))
	all := kinds()
	l := launch{kind: all[r.IntN(len(all))], vcpus: 1 + r.IntN(8), model: models()[r.IntN(len(models()))]}
	if r.IntN(8) == 0 {
		l.vcpus = 1 + r.IntN(measure.MaxVCPUs)
	}
	if l.kind.product != "" {
		l.model = l.kind.product
	}
	if l.kind.mode == "snp" {
		l.features = measure.SNPActive
	}
	if l.features != 0 && l.kind.product == "" && r.IntN(2) == 0 {
		l.features |= r.Uint64() & measure.KnownFeatures
	}
	l.firmware = randomFirmware(r, l.kind.hashes)
	if l.kind.hashes && r.IntN(4) > 0 {
		l.kernel = randomBytes(r, r.IntN(100<<10))
		if r.IntN(4) > 0 {
			l.initrd = randomBytes(r, r.IntN(100<<10))
		}
		l.cmdline = randomCmdline(r)
	}
	return l
}

// randomCmdline returns up to 80 characters of any kind but NUL, as UTF-8: the
// peers take no other bytes, and the Rust peer drops blanks at both ends.
func randomCmdline(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(80) {
		switch r.IntN(8) {
		case 0:
			b.WriteByte(' ')
		case 1:
			b.WriteRune(rune(0xa0 + r.IntN(0xd000)))
		default:
			b.WriteByte(byte('!' + r.IntN('~'-'!'+1)))
		}
	}
	return strings.TrimSpace(b.String())
}

func (l launch) String() string {
	return fmt.Sprintf("%s, %d × %s, features %#x, firmware of %d bytes, kernel %v, initrd %v, command line %q",
		l.kind.profile, l.vcpus, l.model, l.features, len(l.firmware), l.kernel != nil, l.initrd != nil, l.cmdline)
}

// write puts the files into dir and returns sev-snp-measure's flags for them.
func (l launch) write(dir string) ([]string, error) {
	args := []string{"--mode=" + l.kind.mode, "--vmm-type=" + l.kind.vmm, fmt.Sprintf("--vcpus=%d", l.vcpus), "--vcpu-type=" + l.model}
	if l.kind.mode == "snp" {
		args = append(args, fmt.Sprintf("--guest-features=%#x", l.features))
	}
	for _, f := range []struct {
		flag    string
		content []byte
	}{{"ovmf", l.firmware}, {"kernel", l.kernel}, {"initrd", l.initrd}} {
		if f.content == nil {
			continue
		}
		path := filepath.Join(dir, f.flag)
		if err := os.WriteFile(path, f.content, 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--"+f.flag+"="+path)
	}
	if l.cmdline != "" {
		args = append(args, "--append="+l.cmdline)
	}
	return args, nil
}

// digest is ours.
func (l launch) digest() (string, error) {
	profile, err := measure.ParseProfile(l.kind.profile)
	if err != nil {
		return "", err
	}
	cpu, err := measure.ParseCPU(l.model)
	if err != nil {
		return "", err
	}
	shape := measure.Shape{VMM: profile, VCPUs: l.vcpus, CPU: cpu, GuestFeatures: l.features}
	var hashes *measure.KernelHashes
	if l.kernel != nil {
		h, err := measure.HashKernel(bytes.NewReader(l.kernel), bytes.NewReader(l.initrd), l.cmdline)
		if err != nil {
			return "", err
		}
		hashes = &h
	}
	if l.kind.mode != "snp" {
		d, err := measure.SEV(l.firmware, hashes, shape)
		return d.String(), err
	}
	fw, err := measure.ParseFirmware(l.firmware)
	if err != nil {
		return "", err
	}
	d, err := measure.Measure(fw, hashes, shape)
	return d.String(), err
}
