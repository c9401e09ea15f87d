// Package probe finds out whether a firmware compares what it boots with the
// SEV hash table. It boots the image without SEV, under KVM or TCG, with a
// kernel of its own, a table in guest memory as QEMU would put it there, and
// sees whether the kernel runs where the table names something else.
//
// It does not judge the firmware beyond that. One that was made to deceive can
// tell a probe from a launch: a probe speaks of a firmware whose publisher is
// trusted, and says whether it is the right one.
package probe

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/measure"
)

// Verdict says whether a firmware enforces the SEV hash table.
type Verdict int

// The verdicts.
const (
	Unknown      Verdict = iota // nobody has looked
	Inconclusive                // the probe could not find out
	NotEnforced                 // it boots what the table does not name: the digest says nothing about the kernel
	Enforced                    // it boots what the table names, and nothing else
)

// ParseVerdict reads what String writes.
func ParseVerdict(s string) (Verdict, error) {
	for _, v := range []Verdict{Unknown, Inconclusive, NotEnforced, Enforced} {
		if s == v.String() {
			return v, nil
		}
	}
	return 0, fmt.Errorf("unknown verdict %.100q", s)
}

func (v Verdict) String() string {
	switch v {
	case Unknown:
		return "unknown"
	case Inconclusive:
		return "inconclusive"
	case NotEnforced:
		return "not enforced"
	case Enforced:
		return "enforced"
	default:
		return fmt.Sprintf("verdict %d", int(v))
	}
}

// MarshalText returns what String does.
func (v Verdict) MarshalText() ([]byte, error) {
	if _, err := ParseVerdict(v.String()); err != nil {
		return nil, err
	}
	return []byte(v.String()), nil
}

// UnmarshalText reads what MarshalText returns.
func (v *Verdict) UnmarshalText(text []byte) error {
	parsed, err := ParseVerdict(string(text))
	if err != nil {
		return err
	}
	*v = parsed
	return nil
}

// MediaType names this version of a result's JSON.
const MediaType = "application/vnd.kattest.probe.v1+json"

// Result is what a probe found.
type Result struct {
	MediaType string       `json:"mediaType"`
	Firmware  measure.Hash `json:"firmware"` // SHA-256 of the image
	Verdict   Verdict      `json:"verdict"`
	Reason    string       `json:"reason"`
	Boots     []Boot       `json:"boots"`
	QEMU      string       `json:"qemu"`  // its version
	Accel     string       `json:"accel"` // kvm or tcg
	Time      time.Time    `json:"time"`  // of the probe's begin, UTC, seconds
}

// Boot is one boot of the firmware.
type Boot struct {
	Case   string `json:"case"`
	Booted bool   `json:"booted"` // the kernel ran
	Ended  End    `json:"ended"`
	// Milliseconds of the boot, and of the processor time of QEMU in it.
	Milliseconds    int64  `json:"milliseconds"`
	CPUMilliseconds int64  `json:"cpuMilliseconds"`
	Console         string `json:"console,omitempty"` // the last line that was printed
}

// Options are of one probe.
type Options struct {
	Accel    launcher.Accel // zero: the host's default
	Progress func(Boot)     // called after each boot; may be nil
}

// ErrNoPlace says that there is nothing to probe: QEMU cannot launch the
// firmware with kernel hashes.
var ErrNoPlace = errors.New("the firmware has no place for kernel hashes")

// scenario is a boot: what the table in guest memory names.
type scenario struct {
	name  string
	table func(*measure.KernelHashes) // makes it name something else; nil: there is no table
	// program is another program that the host offers, of which no hash is in any
	// table; the kernel is the right one, and says nothing.
	program program
}

// program is a way by which a host offers a program to the firmware.
type program int

const (
	noProgram program = iota
	shim              // QEMU's -shim: to be started in the kernel's place
	optionROM         // of a PCI device: to be started while the bus is enumerated
)

// right is the boot that every firmware must let through.
const right = "right hashes"

// wrong are the boots that a firmware must refuse.
func wrong() []scenario {
	other := measure.Hash(sha256.Sum256([]byte("kattest: something else")))
	return []scenario{
		{name: "another kernel", table: func(h *measure.KernelHashes) { h.Kernel = other }},
		{name: "another initrd", table: func(h *measure.KernelHashes) { h.Initrd = other }},
		{name: "another command line", table: func(h *measure.KernelHashes) { h.Cmdline = other }},
		{name: "no hash table"},
		{name: "a shim", table: func(*measure.KernelHashes) {}, program: shim},
		{name: "an option ROM", table: func(*measure.KernelHashes) {}, program: optionROM},
	}
}

// atOnce is how many guests run at a time.
const atOnce = 2

// Run boots the image once with the right hashes, then once for each wrong one,
// and for each way by which a host offers a program that no hash covers.
// An error means that nothing was learnt about the firmware.
func Run(ctx context.Context, image []byte, o Options) (Result, error) {
	result, err := run(ctx, image, o)
	if err != nil {
		return Result{}, fmt.Errorf("probing the firmware: %w", err)
	}
	return result, nil
}

func run(ctx context.Context, image []byte, o Options) (Result, error) {
	fw, err := measure.ParseFirmware(image)
	if err != nil {
		return Result{}, err
	}
	table, ok := fw.HashTable()
	if !ok {
		return Result{}, ErrNoPlace
	}
	b := booter{image: image, table: table, accel: o.Accel}
	host := launcher.NewHost()
	if b.accel == 0 {
		b.accel = host.DefaultAccel()
	}
	result := Result{
		MediaType: MediaType,
		Firmware:  sha256.Sum256(image),
		Accel:     b.accel.String(),
		Time:      time.Now().UTC().Truncate(time.Second),
	}
	if result.QEMU, err = version(ctx, host); err != nil {
		return Result{}, err
	}
	progress := o.Progress
	if progress == nil {
		progress = func(Boot) {}
	}
	first, err := b.boot(ctx, scenario{name: right, table: func(*measure.KernelHashes) {}}, firstPatience)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", right, err)
	}
	progress(first)
	result.Boots = []Boot{first}
	if first.Booted {
		rest, err := b.bootAll(ctx, wrong(), patienceAfter(first), progress)
		if err != nil {
			return Result{}, err
		}
		result.Boots = append(result.Boots, rest...)
	}
	result.Verdict, result.Reason = judge(result.Boots)
	return result, nil
}

// bootAll boots the scenarios, and returns the boots in their order.
func (b booter) bootAll(ctx context.Context, all []scenario, p patience, progress func(Boot)) ([]Boot, error) {
	boots := make([]Boot, len(all))
	var mu sync.Mutex // of progress
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, s := range all {
		group.Go(func() error {
			boot, err := b.boot(ctx, s, p)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			boots[i] = boot
			mu.Lock()
			defer mu.Unlock()
			progress(boot)
			return nil
		})
	}
	return boots, group.Wait()
}

// judge needs the boot with the right hashes first: where that fails, the others
// say nothing.
func judge(boots []Boot) (Verdict, string) {
	if first := boots[0]; !first.Booted {
		return Inconclusive, fmt.Sprintf("it does not boot what its table names (%v)%s", first.Ended, quoted(first.Console))
	}
	var booted, unclear []string
	for _, b := range boots[1:] {
		switch {
		case b.Booted:
			booted = append(booted, b.Case)
		case !b.Ended.Refused():
			unclear = append(unclear, fmt.Sprintf("%s (%v)", b.Case, b.Ended))
		}
	}
	switch {
	case len(booted) > 0:
		return NotEnforced, "it boots with " + strings.Join(booted, ", ")
	case len(unclear) > 0:
		return Inconclusive, "no telling whether it refuses " + strings.Join(unclear, ", ")
	case len(boots)-1 < len(wrong()):
		return Inconclusive, fmt.Sprintf("%d boots of something else, want %d", len(boots)-1, len(wrong()))
	default:
		return Enforced, fmt.Sprintf("it boots what its table names, and refused %d boots of something else", len(boots)-1)
	}
}

func quoted(console string) string {
	if console == "" {
		return ""
	}
	return fmt.Sprintf("; it printed %q", console)
}

// version returns QEMU's version, as "10.0.2 (Debian …)".
func version(ctx context.Context, host launcher.Host) (string, error) {
	out, err := host.QEMU(ctx, "--version")
	if err != nil {
		return "", fmt.Errorf("%s: %w", launcher.QEMU, err)
	}
	line, _, _ := strings.Cut(out, "\n")
	_, version, ok := strings.Cut(line, "version ")
	if !ok || len(version) > 200 {
		return "", fmt.Errorf("%s --version says %.100q", launcher.QEMU, line)
	}
	return strings.TrimSpace(version), nil
}

// token is a line that nothing else prints.
func token() string { return "kattest-" + rand.Text() }
