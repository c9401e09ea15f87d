package vm

import (
	"fmt"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/stack"
)

// Shape returns what the launch digest and QEMU's line are made from.
func (v *VM) Shape() (measure.Shape, error) { return v.Config.Shape() }

// Shape returns what of the machine enters the launch digest.
func (c Config) Shape() (measure.Shape, error) {
	cpu, err := measure.ParseCPU(c.CPU)
	if err != nil {
		return measure.Shape{}, fmt.Errorf("%s: cpu: %w", ConfigFile, err)
	}
	s := measure.Shape{VMM: measure.QEMU, VCPUs: c.VCPUs, CPU: cpu, GuestFeatures: measure.SNPActive}
	if err := s.Check(); err != nil {
		return measure.Shape{}, fmt.Errorf("%s: %w", ConfigFile, err)
	}
	return s, nil
}

// Measure returns the launch digest of a boot stack with firmware fw on such a
// machine. The kernel's hashes are the manifest's: the stack's files must have
// been checked against it, as stack.LoadFirmware does.
func (c Config) Measure(s stack.Stack, fw *measure.Firmware) (measure.Digest, error) {
	shape, err := c.Shape()
	if err != nil {
		return measure.Digest{}, err
	}
	hashes, err := s.KernelHashes()
	if err != nil {
		return measure.Digest{}, err
	}
	return measure.Measure(fw, &hashes, shape)
}
