package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

// peerVectors is testdata/peers/vectors.json: what other programs say of the
// inputs of peerInputs. docs/equivalence.md tells what the fields mean.
type peerVectors struct {
	Peers map[string]struct {
		Repository string `json:"repository"`
		Commit     string `json:"commit"`
		Run        string `json:"run"` // what takes the arguments
	} `json:"peers"`
	Inputs  map[string]Hash `json:"inputs"`
	Vectors []peerVector    `json:"vectors"`
}

type peerVector struct {
	Peer    string   `json:"peer"`
	Profile Profile  `json:"profile"` // ours for what the peer was asked
	Args    []string `json:"args"`
	Script  string   `json:"script"`  // run in place of the arguments, by Python
	Cmdline []byte   `json:"cmdline"` // in place of --append, where it is no UTF-8
	Digest  string   `json:"digest"`
	Refuses string   `json:"refuses"` // the peer's error in place of a digest

	// Where the peer is wrong, or we disagree.
	Ours        string `json:"ours"`
	OursRefuses string `json:"oursRefuses"` // a problem's code, or a part of the error
	Why         string `json:"why"`
	Source      string `json:"source"` // that proves it
	Deviation   string `json:"deviation"`
}

func (v peerVector) String() string {
	s := v.Peer + " " + strings.Join(v.Args, " ")
	if v.Cmdline != nil {
		s += fmt.Sprintf(" --append %q", v.Cmdline)
	}
	return s
}

// request is what a vector's arguments, those of sev-snp-measure, ask for.
type request struct {
	mode     string
	shape    Shape
	firmware []byte
	svsm     []byte
	vars     int64
	hashes   *KernelHashes
	trimmed  *KernelHashes // with no blanks around the command line
	seed     string
}

func (v peerVector) request(inputs map[string][]byte) (request, error) {
	r := request{shape: Shape{VMM: v.Profile}}
	set := flag.NewFlagSet(v.Peer, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	text := func(name string) *string { return set.String(name, "", "") }
	number := func(name string) *uint64 { return set.Uint64(name, 0, "") }
	mode, ovmf, svsm, seed := text("mode"), text("ovmf"), text("svsm"), text("snp-ovmf-hash")
	kernel, initrd, cmdline := text("kernel"), text("initrd"), text("append")
	model, sig := text("vcpu-type"), number("vcpu-sig")
	family, fmsModel, stepping := number("vcpu-family"), number("vcpu-model"), number("vcpu-stepping")
	vcpus, vars := number("vcpus"), number("vars-size")
	features := set.Uint64("guest-features", SNPActive, "")
	text("vmm-type") // which profile says
	if err := set.Parse(v.Args); err != nil {
		return request{}, err
	}
	var err error
	switch {
	case *model != "":
		r.shape.CPU, err = ParseCPU(*model)
	case *family != 0:
		r.shape.CPU, err = ParseFMS(fmt.Sprintf("%d/%d/%d", *family, *fmsModel, *stepping))
	default:
		r.shape.CPU = SignatureCPU(uint32(*sig))
	}
	if err != nil {
		return request{}, err
	}
	r.mode, r.seed, r.vars = *mode, *seed, int64(*vars)
	r.firmware, r.svsm = inputs[*ovmf], inputs[*svsm]
	r.shape.VCPUs = max(1, int(*vcpus))
	if r.shape.VMM.Describe().Technology == TechnologySNP {
		r.shape.GuestFeatures = *features
	}
	if *kernel == "" {
		return r, nil
	}
	if v.Cmdline != nil {
		*cmdline = string(v.Cmdline)
	}
	h, err := HashKernel(bytes.NewReader(inputs[*kernel]), bytes.NewReader(inputs[*initrd]), *cmdline)
	if err != nil {
		return request{}, err
	}
	r.hashes, r.trimmed = &h, &KernelHashes{Kernel: h.Kernel, Initrd: h.Initrd}
	r.trimmed.Cmdline = sha256.Sum256([]byte(strings.TrimSpace(*cmdline) + "\x00"))
	return r, nil
}

// digest answers a request, in hexadecimal.
func (r request) digest() (string, error) {
	switch r.mode {
	case "snp", "snp:ovmf-hash":
		fw, err := ParseFirmware(r.firmware)
		if err != nil {
			return "", err
		}
		if r.mode == "snp:ovmf-hash" {
			return fw.Digest().String(), nil
		}
		if r.seed != "" {
			state := fw.State()
			if state.Digest, err = ParseDigest(r.seed); err != nil {
				return "", err
			}
			if fw, err = state.Firmware(); err != nil {
				return "", err
			}
		}
		d, err := Measure(fw, r.hashes, r.shape)
		return d.String(), err
	case "snp:svsm":
		fw, err := ParseSVSM(r.firmware, r.svsm, r.vars)
		if err != nil {
			return "", err
		}
		d, err := Measure(fw, nil, r.shape)
		return d.String(), err
	case "sev", "seves":
		d, err := SEV(r.firmware, r.hashes, r.shape)
		return d.String(), err
	default:
		return "", fmt.Errorf("mode %q", r.mode)
	}
}

// deviation answers a request as the peer does that deviates in one thing: it
// shows that the one thing is all.
func (r request) deviation(name string) (string, error) {
	if p, err := ParseProfile(name); err == nil {
		r.shape.VMM = p
		return r.digest()
	}
	if name == "X87_FCW 0" {
		return r.withoutFCW()
	}
	fw, err := ParseFirmware(r.firmware)
	if err != nil {
		return "", err
	}
	state := fw.State()
	switch name {
	case "blanks":
		r.hashes = r.trimmed
	case "one page":
		for i, s := range state.Sections {
			if s.Type == SectionSecrets || s.Type == SectionCPUID {
				state.Sections[i].Size = PageSize
			}
		}
	case "type byte":
		for i := range state.Sections {
			state.Sections[i].Type &= 0xff
		}
	case "farthest":
		t, err := parseTable(r.firmware)
		if err != nil {
			return "", err
		}
		for _, e := range t {
			if e.id == guidReset {
				state.ResetVector, err = table{e}.resetVector()
			}
		}
		if err != nil {
			return "", err
		}
	default:
		return "", fmt.Errorf("deviation %q", name)
	}
	if fw, err = state.Firmware(); err != nil {
		return "", err
	}
	d, err := Measure(fw, r.hashes, r.shape)
	return d.String(), err
}

func (r request) withoutFCW() (string, error) {
	fw, err := ParseSVSM(r.firmware, r.svsm, r.vars)
	if err != nil {
		return "", err
	}
	d, err := fw.Prefix(nil, r.shape.VMM)
	if err != nil {
		return "", err
	}
	page := ResetVMSA(fw.resetVector, r.shape)
	page[0x410], page[0x411] = 0, 0
	vmsa, _ := fw.VMSAs(r.shape)
	vmsa.Contents = hashPage(page)
	for range r.shape.VCPUs {
		d = d.Extend(vmsa)
	}
	return d.String(), nil
}

func loadPeerVectors(t *testing.T) peerVectors {
	t.Helper()
	data, err := os.ReadFile("testdata/peers/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var all peerVectors
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&all); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPeers(t *testing.T) {
	all, inputs := loadPeerVectors(t), peerInputs()
	for name, content := range inputs {
		if got := Hash(sha256.Sum256(content)); got != all.Inputs[name] {
			t.Fatalf("input %s has SHA-256 %v, the vectors are for %v", name, got, all.Inputs[name])
		}
	}
	agree := map[string]int{} // per peer
	for _, v := range all.Vectors {
		t.Run(v.String(), func(t *testing.T) {
			if all.Peers[v.Peer].Commit == "" {
				t.Fatalf("peer %q is not described", v.Peer)
			}
			r, err := v.request(inputs)
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.digest()
			if v.Why == "" {
				agree[v.Peer]++
				if err != nil || got != v.Digest {
					t.Errorf("%v, %v, the peer says %s", got, err, v.Digest)
				}
				return
			}
			v.checkDisagreement(t, r, got, err)
		})
	}
	for peer := range all.Peers {
		if agree[peer] == 0 {
			t.Errorf("no vector in which %s and we agree", peer)
		}
	}
}

// checkDisagreement holds our answer and, where it is known what the peer does
// otherwise, the peer's.
func (v peerVector) checkDisagreement(t *testing.T, r request, got string, err error) {
	t.Helper()
	if v.Source == "" {
		t.Error("no source says that the peer is wrong")
	}
	if v.OursRefuses != "" {
		if err == nil || !strings.Contains(err.Error(), v.OursRefuses) && !hasProblem(err, ProblemCode(v.OursRefuses)) {
			t.Errorf("%v, error %v, want it refused for %s", got, err, v.OursRefuses)
		}
		return
	}
	if err != nil || got != v.Ours || got == v.Digest {
		t.Errorf("%v, %v, want %s: %s", got, err, v.Ours, v.Why)
	}
	if v.Digest == "" {
		return
	}
	if as, err := r.deviation(v.Deviation); err != nil || as != v.Digest {
		t.Errorf("with the deviation %q %v, %v, the peer says %s", v.Deviation, as, err, v.Digest)
	}
}

func hasProblem(err error, code ProblemCode) bool {
	refused, ok := errors.AsType[*FirmwareError](err)
	if !ok {
		return false
	}
	for _, p := range refused.Problems {
		if p.Code == code && p.Effect == EffectRefused {
			return true
		}
	}
	return false
}
