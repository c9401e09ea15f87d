package launcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/launcher/doctor"
	"github.com/kraudcloud/kattest/launcher/simpsp"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/stack"
)

// launch is a machine and what its platform is given with it.
type launch struct {
	vm       *vm.VM
	machine  Machine
	spec     []byte               // what goes on the spec disk
	hashes   measure.KernelHashes // Sim: what goes into the hash table
	hostData pod.Hash
	psp      *simpsp.Guest // Sim
}

// prepare makes everything of a launch that needs no QEMU.
func (h Host) prepare(ctx context.Context, v *vm.VM, o Options) (*launch, error) {
	if o.Platform == SNP {
		if o.Claims.Hashes != nil {
			return nil, errors.New("on SEV-SNP QEMU makes the hash table, and no claim replaces it")
		}
		if err := h.CheckSNP(ctx, Want(v, o.SEVDevice)); err != nil {
			return nil, err
		}
	}
	m, fw, err := h.machine(v, o)
	if err != nil {
		return nil, err
	}
	l := &launch{vm: v, machine: m, spec: v.SpecBytes, hostData: m.HostData}
	if o.Claims.Spec != nil {
		l.spec = o.Claims.Spec
	}
	if l.machine.Network, err = l.machine.Network.withPorts(); err != nil {
		return nil, err
	}
	var digest measure.Digest
	if o.Platform == Sim || m.IDBlock != nil {
		if l.hashes, digest, err = measureLaunch(v, fw, m.Shape, o.Claims); err != nil {
			return nil, err
		}
	}
	if o.Claims.IDBlock == nil {
		if err := m.checkIDBlock(digest); err != nil {
			return nil, err
		}
	}
	if o.Platform == SNP {
		if l.machine.CBitPos, err = doctor.CBitPos(h); err != nil {
			return nil, err
		}
		return l, nil
	}
	processor, err := simpsp.Load(o.PSPState)
	if err != nil {
		return nil, err
	}
	if m.IDBlock == nil {
		l.psp = processor.Launch(digest, l.hostData, m.Policy)
		return l, nil
	}
	if l.psp, err = processor.LaunchID(digest, l.hostData, m.Policy, *m.IDBlock); err != nil {
		return nil, fmt.Errorf("simulated PSP: %w", err)
	}
	return l, nil
}

// measureLaunch returns what goes into the hash table, and the launch digest.
func measureLaunch(v *vm.VM, fw *measure.Firmware, shape measure.Shape, c Claims) (measure.KernelHashes, measure.Digest, error) {
	hashes, err := hashKernel(v, c)
	if err != nil {
		return measure.KernelHashes{}, measure.Digest{}, err
	}
	digest, err := measure.Measure(fw, &hashes, shape)
	if err != nil {
		return measure.KernelHashes{}, measure.Digest{}, fmt.Errorf("measuring the launch: %w", err)
	}
	return hashes, digest, nil
}

// checkIDBlock refuses a launch that the firmware would refuse, and says why:
// from the firmware comes no more than a number.
func (m Machine) checkIDBlock(digest measure.Digest) error {
	if m.IDBlock == nil {
		return nil
	}
	if err := m.IDBlock.Block.Match(digest, m.Policy); err != nil {
		return fmt.Errorf("the firmware would refuse this launch: %w", err)
	}
	return nil
}

// machine is the part of a launch that the QEMU line shows. HOST_DATA is of the
// spec's bytes as they stand: that they are a spec is for the agent to judge.
func (h Host) machine(v *vm.VM, o Options) (Machine, *measure.Firmware, error) {
	p, a, c := o.Platform, o.Accel, o.Claims
	shape, err := v.Shape()
	if err != nil {
		return Machine{}, nil, err
	}
	image, err := os.ReadFile(v.StackFile(stack.Firmware))
	if err != nil {
		return Machine{}, nil, err
	}
	fw, err := measure.ParseFirmware(image)
	if err != nil {
		return Machine{}, nil, fmt.Errorf("%s: %w", stack.Firmware, err)
	}
	table, ok := fw.HashTable()
	if !ok {
		return Machine{}, nil, fmt.Errorf("%s has no SEV hash table: the AmdSev build of edk2 is wanted", stack.Firmware)
	}
	policy, err := PolicyOf(v.Config.IDBlock)
	if err != nil {
		return Machine{}, nil, err
	}
	m := Machine{
		Platform:  p,
		Accel:     a,
		Shape:     shape,
		MemoryMiB: v.Config.MemoryMiB,
		Cmdline:   v.Stack.Cmdline,
		Network:   networkOf(v),
		Disks:     disksOf(v),
		VsockCID:  v.Config.VsockCID,
		Policy:    policy,
		HashTable: table,
		HostData:  pod.Digest(v.SpecBytes),
		IDBlock:   v.Config.IDBlock,
		SEVDevice: o.SEVDevice,
	}
	if c.IDBlock != nil {
		m.IDBlock = c.IDBlock
	}
	if c.Spec != nil {
		m.HostData = pod.Digest(c.Spec)
	}
	if c.HostData != nil {
		m.HostData = *c.HostData
	}
	switch {
	case p == SNP && a == TCG:
		return Machine{}, nil, errors.New("SEV-SNP needs KVM")
	case p == SNP:
		m.Accel = KVM
	case a == 0:
		m.Accel = h.DefaultAccel()
	}
	return m, fw, nil
}

func hashKernel(v *vm.VM, c Claims) (measure.KernelHashes, error) {
	if c.Hashes != nil {
		return *c.Hashes, nil
	}
	kernel, err := os.Open(v.StackFile(stack.Kernel))
	if err != nil {
		return measure.KernelHashes{}, err
	}
	defer kernel.Close()
	initrd, err := os.Open(v.StackFile(stack.Initrd))
	if err != nil {
		return measure.KernelHashes{}, err
	}
	defer initrd.Close()
	return measure.HashKernel(kernel, io.Reader(initrd), v.Stack.Cmdline)
}

// networkOf lays QEMU's network around the address that the spec gives the
// guest. A spec without one, or one that cannot be read, gets the address that
// summon gives: whether to go on is for the agent to say.
func networkOf(v *vm.VM) Network {
	if b := v.Config.Bridge; b != nil {
		n := Network{Bridge: b.Name, MAC: b.MAC}
		if addresses := v.Spec.Network.Addresses; len(addresses) > 0 {
			n.Agent = netip.AddrPortFrom(addresses[0].Addr(), port.AgentPort)
		}
		return n
	}
	n := Network{
		Guest:      netip.MustParsePrefix("10.0.2.15/24"),
		Gateway:    netip.MustParseAddr("10.0.2.2"),
		Nameserver: netip.MustParseAddr("10.0.2.3"),
		Agent:      v.Config.Agent,
		Forwards:   v.Config.Forwards,
	}
	for _, a := range v.Spec.Network.Addresses {
		if a.Addr().Is4() {
			n.Guest = a
			break
		}
	}
	n.Gateway = first4(v.Spec.Network.Gateways, n.Gateway)
	n.Nameserver = first4(v.Spec.Network.Nameservers, n.Nameserver)
	for _, a := range v.Spec.Network.Addresses {
		if a.Addr().Is6() {
			n.Guest6, n.Gateway6 = a, vm.Gateway(a)
			break
		}
	}
	for _, a := range v.Spec.Network.Gateways {
		if a.Is6() {
			n.Gateway6 = a
			break
		}
	}
	return n
}

func first4(addresses []netip.Addr, otherwise netip.Addr) netip.Addr {
	for _, a := range addresses {
		if a.Is4() {
			return a
		}
	}
	return otherwise
}

// withPorts replaces each port that is to be any free one. QEMU could choose
// itself, but would not say which.
func (n Network) withPorts() (Network, error) {
	if n.Bridge != "" {
		return n, nil
	}
	var err error
	if n.Agent, err = freePort("tcp", n.Agent); err != nil {
		return Network{}, err
	}
	forwards := make([]vm.Forward, len(n.Forwards))
	for i, f := range n.Forwards {
		chosen, err := freePort(f.Protocol, netip.AddrPortFrom(f.HostAddress, f.HostPort))
		if err != nil {
			return Network{}, err
		}
		f.HostPort = chosen.Port()
		forwards[i] = f
	}
	n.Forwards = forwards
	return n, nil
}

func freePort(protocol string, at netip.AddrPort) (netip.AddrPort, error) {
	if at.Port() != 0 {
		return at, nil
	}
	fail := func(err error) (netip.AddrPort, error) {
		return netip.AddrPort{}, fmt.Errorf("finding a free port: %w", err)
	}
	if protocol == "udp" {
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return fail(err)
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).AddrPort(), nil
	}
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return fail(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort(), nil
}
