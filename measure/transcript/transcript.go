// Package transcript is the account of a launch digest as a file: each step of
// the chain with the digest after it, so that two launches can be compared step
// by step. The format is documented in docs/spec/transcript.md.
//
// A transcript that was read is consistent: every digest follows from the one
// before. Whether it is the account of a launch that ever was, or of the shape
// that it names, is not checked; nor is where it comes from.
package transcript

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/kraudcloud/kattest/internal/strictjson"
	"github.com/kraudcloud/kattest/measure"
)

// MediaType names this version of the format.
const MediaType = "application/vnd.kattest.transcript.v1+json"

// Bounds of a transcript: a firmware of the largest size has 8192 steps.
const (
	MaxSize  = 16 << 20 // bytes
	maxSteps = 32 << 10
	maxPages = 1 << 18 // 1 GiB
	maxWhat  = 256     // bytes
)

// Transcript is the account of one launch digest.
type Transcript struct {
	MediaType     string          `json:"mediaType"`
	VMM           measure.Profile `json:"vmm"`
	VCPUs         int             `json:"vcpus"`
	CPU           string          `json:"cpu,omitempty"` // QEMU's name of the model, where it is known
	CPUSignature  uint32          `json:"cpuSignature"`
	GuestFeatures uint64          `json:"guestFeatures"`
	// KernelHashes are those of the kernel that was launched; nil where kernel
	// hashes are off.
	KernelHashes *measure.KernelHashes `json:"kernelHashes,omitempty"`
	Steps        []measure.Step        `json:"steps"`
	Measurement  measure.Digest        `json:"measurement"` // the last step's state
}

// New returns the account of what measure.Measure computes.
func New(fw *measure.Firmware, hashes *measure.KernelHashes, shape measure.Shape) (Transcript, error) {
	steps, err := measure.Steps(fw, hashes, shape)
	if err != nil {
		return Transcript{}, err
	}
	return Of(steps, hashes, shape), nil
}

// Of returns the account of steps that were computed for a shape; the last step's
// state is the measurement.
func Of(steps []measure.Step, hashes *measure.KernelHashes, shape measure.Shape) Transcript {
	t := Transcript{
		MediaType: MediaType, VMM: shape.VMM, VCPUs: shape.VCPUs,
		CPU: shape.CPU.Name, CPUSignature: shape.CPU.Signature, GuestFeatures: shape.GuestFeatures,
		KernelHashes: hashes, Steps: steps,
	}
	if n := len(steps); n > 0 {
		t.Measurement = steps[n-1].State
	}
	return t
}

// Parse reads a transcript and checks that its chain holds.
func Parse(data []byte) (Transcript, error) {
	if len(data) > MaxSize {
		return Transcript{}, fmt.Errorf("transcript: %d bytes, more than %d", len(data), MaxSize)
	}
	var t Transcript
	if err := strictjson.Decode(data, &t); err != nil {
		return Transcript{}, fmt.Errorf("transcript: %w", err)
	}
	if err := t.check(); err != nil {
		return Transcript{}, fmt.Errorf("transcript: %w", err)
	}
	return t, nil
}

// Encode returns the transcript as Parse reads it.
func (t Transcript) Encode() ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("transcript: %w", err)
	}
	b, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("transcript: %w", err)
	}
	return append(b, '\n'), nil
}

// check reports the first thing that is wrong.
func (t Transcript) check() error {
	switch {
	case t.MediaType != MediaType:
		return fmt.Errorf("mediaType: %.80q, want %q", t.MediaType, MediaType)
	case t.VMM == 0:
		return errors.New("vmm: missing")
	case t.VCPUs < 1 || t.VCPUs > measure.MaxVCPUs:
		return fmt.Errorf("vcpus: %d is not between 1 and %d", t.VCPUs, measure.MaxVCPUs)
	case len(t.Steps) == 0 || len(t.Steps) > maxSteps:
		return fmt.Errorf("steps: %d, want 1 to %d", len(t.Steps), maxSteps)
	}
	var digest measure.Digest
	pages := 0
	for i, s := range t.Steps {
		if err := checkStep(s, maxPages-pages); err != nil {
			return fmt.Errorf("steps[%d].%w", i, err)
		}
		pages += s.Pages
		after := s.After(digest)
		if i == 0 && opaque(s) {
			after = s.State // its contents are not known
		}
		if s.State != after {
			return fmt.Errorf("steps[%d].state: %v does not follow from the step before; want %v", i, s.State, after)
		}
		digest = s.State
	}
	if t.Measurement != digest {
		return fmt.Errorf("measurement: %v is not the last step's state %v", t.Measurement, digest)
	}
	return nil
}

func checkStep(s measure.Step, pages int) error {
	switch {
	case s.What == "" || len(s.What) > maxWhat:
		return fmt.Errorf("what: %d bytes, want 1 to %d", len(s.What), maxWhat)
	case s.Type == 0:
		return errors.New("type: missing")
	case s.Pages < 1 || s.Pages > pages:
		return fmt.Errorf("pages: %d is not between 1 and %d, which are left", s.Pages, pages)
	case s.GPA%measure.PageSize != 0 || s.GPA >= 1<<52:
		return fmt.Errorf("gpa: %#x is not a page's address below 2^52", s.GPA)
	case !s.Type.Measured() && s.Contents != (measure.Digest{}):
		return fmt.Errorf("contents: given for a page of type %v, of which they are not measured", s.Type)
	}
	return nil
}

// opaque reports whether of the step only the digest after it is known.
func opaque(s measure.Step) bool {
	return s.Type == measure.PageNormal && s.Contents == measure.Digest{}
}
