// Package launcher runs the guest that a VM folder holds, on SEV-SNP or on the
// simulated platform: it builds QEMU's arguments from the value that is
// measured, starts QEMU, connects the guest's ports and ends with it.
//
// The launcher is on the host's side: a guest and its verifier trust it with
// nothing. It bounds and checks what a guest says to it, but it does not verify
// evidence, and what it reports of a guest's events is the guest's word.
package launcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/launcher/doctor"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/idblock"
)

// Default time-outs. They are generous: a boot that takes two seconds on a
// quiet machine takes a minute under TCG on a loaded one.
const (
	DefaultBootTimeout = 5 * time.Minute
	DefaultStopTimeout = time.Minute
)

// Options say how to run a guest.
type Options struct {
	Platform Platform
	// Accel is for Sim alone; zero takes what the host offers.
	Accel Accel
	// PSPState is the simulated PSP's folder, for Sim alone.
	PSPState string
	// SEVDevice leads to the secure processor, for SNP alone. Empty is
	// doctor.DefaultSEVDevice.
	SEVDevice string

	// Stdout and Stderr take the workload's output, where the spec lets the host
	// have it. Nil discards it.
	Stdout, Stderr io.Writer
	// Console takes what firmware, kernel and agent print, without terminal
	// control. Nil discards it; DIR/console.log has it in any case.
	Console io.Writer

	// BootTimeout bounds the time from QEMU's start to the execution of the
	// container's process, StopTimeout that from a stop to the end. Zero is the
	// default.
	BootTimeout, StopTimeout time.Duration
	// Kill ends the guest at once when it is closed.
	Kill <-chan struct{}

	// OnStart is called when QEMU runs, OnEvent for each event of the guest, in
	// order. Either may be nil. They must not block.
	OnStart func(State)
	OnEvent func(Event)

	Claims Claims
}

// Claims are lies of the host's, for showing that a guest or a verifier refuses
// them. The zero value is the truth; nothing but tests sets them.
type Claims struct {
	// Hashes is what the SEV hash table says, and thus what is measured, in
	// place of the hashes of what is booted. On Sim alone.
	Hashes *measure.KernelHashes
	// HostData is what is put into HOST_DATA in place of the spec's digest.
	HostData *pod.Hash
	// Spec is what is put on the spec disk in place of spec.json.
	Spec []byte
	// IDBlock is handed to the processor unchecked, in place of vm.json's.
	IDBlock *idblock.Signed
}

// RefusedError says that the guest refused to go on, and why by its own word.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "the guest refused: " + e.Reason }

// Errors by which callers may branch.
var (
	// ErrRunning says that another launcher runs the guest.
	ErrRunning = errors.New("the guest is running already")
	// ErrFirmwareRefused says that the firmware stopped before the kernel. It
	// says so by an endless loop before any output: edk2,
	// OvmfPkg/AmdSev/BlobVerifierLibSevHashes/BlobVerifierSevHashes.c.
	ErrFirmwareRefused = errors.New("the firmware refused the kernel, initrd or command line: they do not match the SEV hash table")
	// ErrNothingBooted says that the firmware found nothing that it may boot, and said
	// so.
	ErrNothingBooted = errors.New("the firmware boots nothing: the SEV hash table is missing, empty or of another form")
	// ErrBridge says that the guest could not be put on its bridge.
	ErrBridge = errors.New("no tap device on the bridge")
	// ErrStopped says that the guest was ended before its container was.
	ErrStopped = errors.New("stopped before the container ended")
)

// Run runs the guest in v until it ends, and returns the exit status of its
// container. When ctx ends it asks the agent to stop the container, once. QEMU
// ends with the launcher, however that ends.
func Run(ctx context.Context, v *vm.VM, o Options) (exit int, err error) {
	return NewHost().Run(ctx, v, o)
}

// Run is as the function Run, on the host h.
func (h Host) Run(ctx context.Context, v *vm.VM, o Options) (exit int, err error) {
	folder, err := openFolder(v.Dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, folder.close()) }()

	l, err := h.prepare(ctx, v, o)
	if err != nil {
		return 0, err
	}
	args, err := l.machine.Args()
	if err != nil {
		return 0, err
	}
	if err := folder.fill(l); err != nil {
		return 0, fmt.Errorf("preparing %s: %w", v.Dir, err)
	}
	began := time.Now()
	// On a full disk there is no record; the container ended all the same.
	defer func() { _ = folder.writeEnd(endOf(began, exit, err)) }()
	s, err := start(ctx, folder, l, args, o)
	if err != nil {
		return 0, err
	}
	return s.supervise(ctx)
}

func endOf(began time.Time, exit int, err error) End {
	e := End{MediaType: EndMediaType, Began: began.UTC(), Ended: time.Now().UTC(), Exit: exit}
	if err != nil {
		e.Error, e.Stopped = err.Error(), errors.Is(err, ErrStopped)
	}
	return e
}

// Line returns the program and the arguments that Run would use in v.Dir, and
// what it had to assume about the host, if anything. It needs neither SEV-SNP
// nor a free port: ports that are to be any free one stand as 0.
func (h Host) Line(v *vm.VM, o Options) (line []string, assumed string, err error) {
	m, fw, err := h.machine(v, o)
	if err != nil {
		return nil, "", err
	}
	if m.IDBlock != nil {
		_, digest, err := measureLaunch(v, fw, m.Shape, o.Claims)
		if err != nil {
			return nil, "", err
		}
		if err := m.checkIDBlock(digest); err != nil {
			return nil, "", err
		}
	}
	if o.Platform == SNP {
		if m.CBitPos, err = doctor.CBitPos(h); err != nil {
			m.CBitPos = DefaultCBitPos
			assumed = fmt.Sprintf("cbitpos=%d, as on every EPYC with SEV-SNP so far: %v", DefaultCBitPos, err)
		}
	}
	args, err := m.Args()
	if err != nil {
		return nil, "", err
	}
	return append([]string{QEMU}, args...), assumed, nil
}
