package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/internal/strictjson"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/idblock"
)

// MediaType names this version of vm.json.
const MediaType = "application/vnd.kattest.vm.v1+json"

// Bounds of a Config.
const (
	MaxVCPUs     = measure.MaxVCPUs
	MinMemoryMiB = 256
	MaxMemoryMiB = 4 << 20 // 4 TiB
	minCID       = 3       // of a guest: vsock(7)
)

// Config is what the host alone decides about a guest, as it stands in vm.json.
// The number and model of the vCPUs are in the launch measurement, and the ID
// block labels the report; nothing else of it is seen by a verifier.
type Config struct {
	MediaType string `json:"mediaType"`
	VCPUs     int    `json:"vcpus"`
	CPU       string `json:"cpu"` // QEMU's name of the model, such as EPYC-v4
	MemoryMiB int    `json:"memoryMiB"`
	// Agent is the host's address that leads to the agent; port 0 is any free one.
	Agent    netip.AddrPort `json:"agent"`
	Forwards []Forward      `json:"forwards,omitempty"`
	// Bridge puts the guest on a bridge of the host's, in place of QEMU's network.
	Bridge *Bridge `json:"bridge,omitempty"`
	// VsockCID is the guest's context identifier, at which the host's own programs
	// reach the agent without a network. 0: none.
	VsockCID uint32 `json:"vsockCID,omitempty"`
	// Volumes say where the disks of the spec's volumes are.
	Volumes []Volume `json:"volumes,omitempty"`
	// IDBlock makes the firmware refuse another launch, if not nil.
	IDBlock *idblock.Signed `json:"idBlock,omitempty"`
}

// Forward leads from a port of the host to one of the guest.
type Forward struct {
	HostAddress netip.Addr `json:"hostAddress"` // IPv4
	HostPort    uint16     `json:"hostPort"`    // 0 is any free one
	GuestPort   uint16     `json:"guestPort"`
	Protocol    string     `json:"protocol"` // tcp or udp
}

// DefaultConfig returns the machine that summon makes unless told otherwise.
func DefaultConfig() Config {
	return Config{
		MediaType: MediaType,
		VCPUs:     1,
		CPU:       "EPYC-v4",
		MemoryMiB: 2048,
		Agent:     netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0),
	}
}

// ParseConfig reads a vm.json in any JSON form and checks it. Unknown and
// duplicate members are errors.
func ParseConfig(data []byte) (Config, error) {
	var c Config
	if err := strictjson.Decode(data, &c); err != nil {
		return Config{}, fmt.Errorf("%s: %w", ConfigFile, err)
	}
	if err := c.Check(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", ConfigFile, err)
	}
	return c, nil
}

// Encode returns c as it stands in vm.json.
func (c Config) Encode() ([]byte, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w", ConfigFile, err)
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ConfigFile, err)
	}
	return append(b, '\n'), nil
}

// Check reports everything that is wrong with c, joined.
func (c Config) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if c.MediaType != MediaType {
		bad("mediaType: %q, want %q", c.MediaType, MediaType)
	}
	if c.VCPUs < 1 || c.VCPUs > MaxVCPUs {
		bad("vcpus: %d is not between 1 and %d", c.VCPUs, MaxVCPUs)
	}
	if _, err := measure.ParseCPU(c.CPU); err != nil {
		bad("cpu: %w", err)
	}
	if c.MemoryMiB < MinMemoryMiB || c.MemoryMiB > MaxMemoryMiB {
		bad("memoryMiB: %d is not between %d and %d", c.MemoryMiB, MinMemoryMiB, MaxMemoryMiB)
	}
	if !c.Agent.Addr().Is4() {
		bad("agent: %q is not an IPv4 address and a port", c.Agent)
	}
	for i, f := range c.Forwards {
		if err := f.check(); err != nil {
			bad("forwards[%d]: %w", i, err)
		}
		if slices.ContainsFunc(c.Forwards[:i], f.collides) || f.HostPort != 0 && f.Protocol == "tcp" && f.from() == c.Agent {
			bad("forwards[%d]: %s/%s of the host is taken twice", i, f.from(), f.Protocol)
		}
	}
	c.checkVolumes(bad)
	c.checkBridge(bad)
	if c.VsockCID != 0 && c.VsockCID < minCID || c.VsockCID == math.MaxUint32 {
		bad("vsockCID: %d is not between %d and %d", c.VsockCID, minCID, math.MaxUint32-1)
	}
	if c.IDBlock != nil {
		if err := c.IDBlock.Verify(); err != nil {
			bad("idBlock: %w", err)
		}
	}
	return errors.Join(errs...)
}

func (f Forward) check() error {
	switch {
	case !f.HostAddress.Is4():
		return fmt.Errorf("hostAddress: %q is not an IPv4 address", f.HostAddress)
	case f.Protocol != "tcp" && f.Protocol != "udp":
		return fmt.Errorf("protocol: %q is neither tcp nor udp", f.Protocol)
	case f.GuestPort == 0:
		return errors.New("guestPort: 0 is no port")
	case f.GuestPort == port.AgentPort && f.Protocol == "tcp":
		return fmt.Errorf("guestPort: %d/tcp is the agent's", port.AgentPort)
	}
	return nil
}

func (f Forward) from() netip.AddrPort { return netip.AddrPortFrom(f.HostAddress, f.HostPort) }

func (f Forward) collides(g Forward) bool {
	return f.HostPort != 0 && f.from() == g.from() && f.Protocol == g.Protocol
}
