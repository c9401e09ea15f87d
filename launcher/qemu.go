package launcher

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/idblock"
	"github.com/kraudcloud/kattest/measure/stack"
)

// Policy is the guest policy of a launch without an ID block: bit 17, which must
// be one, and bit 16, which permits SMT. No debugging, no migration agent.
// Source: AMD 56860, section 4.3 (guest policy).
const Policy = 0x30000

// Bits of the guest policy that let the host into the guest.
const (
	policyMigrate = 1 << 18
	policyDebug   = 1 << 19
)

// PolicyOf returns the guest policy of a launch with that ID block, which is nil
// where there is none: the block's, as the firmware refuses any other. One that
// lets the host into the guest is refused; the error wraps idblock.ErrPolicy.
func PolicyOf(id *idblock.Signed) (uint64, error) {
	if id == nil {
		return Policy, nil
	}
	policy := id.Block.Policy
	if open := policy & (policyMigrate | policyDebug); open != 0 {
		return 0, fmt.Errorf("%w: POLICY %#x would let the host into the guest (bits %#x)", idblock.ErrPolicy, policy, open)
	}
	return policy, nil
}

// Names below the VM's folder that exist while it runs. QEMU's working folder
// is the VM's folder, so that its arguments are short, need no escaping and are
// the same wherever the folder stands.
const (
	runDir        = "run"
	specDisk      = "run/spec.img"
	hashTable     = "run/hashes.bin"
	scratchDisk   = "run/scratch.img"
	qmpSocket     = "run/qmp.sock"
	consoleSocket = "run/console.sock"
)

// Machine is everything that QEMU's arguments are made of.
type Machine struct {
	Platform  Platform
	Accel     Accel         // on Sim; SNP is always KVM
	Shape     measure.Shape // as measured
	MemoryMiB int
	Cmdline   string
	Network   Network
	Disks     []Disk // beside spec and root file system
	VsockCID  uint32 // 0: no vsock
	Policy    uint64

	HashTable uint32   // on Sim: where the SEV hash table stands in guest memory
	HostData  pod.Hash // on SNP: HOST_DATA
	CBitPos   int      // on SNP: the host's CPUID 0x8000001F EBX[5:0]
	SEVDevice string   // on SNP: a path from the root; empty is QEMU's own, /dev/sev

	IDBlock *idblock.Signed // on SNP: handed to the firmware, if not nil
}

// Network is QEMU's user-mode network, on which the guest has one IPv4 address
// and may have one of IPv6, or a bridge of the host's.
type Network struct {
	Guest      netip.Prefix // the guest's address
	Gateway    netip.Addr   // QEMU's side of the network
	Nameserver netip.Addr   // forwarded to the host's
	Guest6     netip.Prefix // zero: QEMU has no IPv6
	Gateway6   netip.Addr
	Agent      netip.AddrPort
	Forwards   []vm.Forward

	Bridge string // where not empty, nothing above but Agent counts
	MAC    string // of the guest's interface, on a bridge
}

// option is one QEMU option and its value; flags have none.
type option struct{ name, value string }

// Args returns QEMU's arguments. It reads nothing: the same machine makes the
// same arguments. File names are relative to the VM's folder.
func (m Machine) Args() ([]string, error) {
	options, err := m.options()
	if err != nil {
		return nil, fmt.Errorf("making the QEMU line: %w", err)
	}
	var args []string
	for _, o := range options {
		args = append(args, o.name)
		if o.value != "" {
			args = append(args, o.value)
		}
	}
	return args, nil
}

func (m Machine) options() ([]option, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	memory := strconv.Itoa(m.MemoryMiB) + "M"
	// q35 without what the guest's kernel has no driver for. SMM is off as
	// SEV-ES and SNP have none.
	machine := "q35,smm=off,vmport=off,hpet=off,sata=off,smbus=off,memory-backend=ram0"
	accel := m.Accel.String()
	if m.Platform == SNP {
		accel = KVM.String()
		machine += ",confidential-guest-support=sev0,kernel-irqchip=split"
	}
	options := []option{
		{"-nodefaults", ""},
		{"-no-user-config", ""},
		{"-no-reboot", ""},
		{"-display", "none"},
		{"-S", ""}, // the guest waits until every port is connected
		{"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"},
		{"-accel", accel},
		{"-cpu", m.Shape.CPU.Name + ",pmu=off"},
		{"-smp", fmt.Sprintf("%d,maxcpus=%d", m.Shape.VCPUs, m.Shape.VCPUs)},
		{"-m", memory},
		{"-machine", machine},
		{"-object", "memory-backend-memfd,id=ram0,size=" + memory + ",share=on,prealloc=off"},
	}
	if m.Platform == SNP {
		options = append(options, option{"-object", m.snpObject()})
	}
	options = append(options,
		option{"-bios", filepath.Join(vm.StackDir, stack.Firmware)},
		option{"-kernel", filepath.Join(vm.StackDir, stack.Kernel)},
		option{"-initrd", filepath.Join(vm.StackDir, stack.Initrd)},
		option{"-append", m.Cmdline},
	)
	if m.Platform == Sim {
		options = append(options, option{"-device", fmt.Sprintf("loader,file=%s,addr=%#x,force-raw=on", hashTable, m.HashTable)})
	}
	options = append(options, disk(port.SpecDisk, specDisk)...)
	options = append(options, disk(port.RootDisk, vm.RootFile)...)
	for _, d := range m.Disks {
		options = append(options, d.options()...)
	}
	options = append(options, m.network()...)
	if m.VsockCID != 0 {
		options = append(options, option{"-device", virtio(fmt.Sprintf("vhost-vsock-pci,guest-cid=%d", m.VsockCID))})
	}
	options = append(options, m.ports()...)
	return append(options,
		option{"-chardev", socket("console", consoleSocket)},
		option{"-serial", "chardev:console"},
		option{"-chardev", socket("qmp", qmpSocket)},
		option{"-mon", "chardev=qmp,mode=control"},
	), nil
}

func (m Machine) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch m.Platform {
	case SNP:
	case Sim:
		if m.Accel != KVM && m.Accel != TCG {
			bad("%v", m.Accel)
		}
	default:
		bad("%v", m.Platform)
	}
	if m.Shape.VMM != measure.QEMU {
		bad("the launch is measured for %v, not for QEMU", m.Shape.VMM)
	}
	// KVM adds SNPActive, and QEMU up to 11.1 has no way to ask for more.
	if m.Shape.GuestFeatures != measure.SNPActive {
		bad("guest features %#x, QEMU launches with %#x alone", m.Shape.GuestFeatures, measure.SNPActive)
	}
	if m.Shape.CPU.Name == "" {
		bad("a CPU model is wanted by name, not by signature %#x", m.Shape.CPU.Signature)
	}
	if m.Shape.VCPUs < 1 || m.MemoryMiB < 1 {
		bad("%d vCPUs and %d MiB of memory", m.Shape.VCPUs, m.MemoryMiB)
	}
	if m.SEVDevice != "" && !filepath.IsAbs(m.SEVDevice) {
		bad("the secure processor's device %q is not a path from the root", m.SEVDevice)
	}
	if m.Network.Bridge == "" && !m.Network.Guest.Addr().Is4() {
		bad("network: guest address %q is not IPv4", m.Network.Guest)
	}
	return errors.Join(errs...)
}

// snpObject is what asks for SEV-SNP. reduced-phys-bits is 1 whatever CPUID
// says: memory encryption takes one bit of a guest's physical addresses.
func (m Machine) snpObject() string {
	object := fmt.Sprintf("sev-snp-guest,id=sev0,cbitpos=%d,reduced-phys-bits=1,policy=%#x,kernel-hashes=on,host-data=%s",
		m.CBitPos, m.Policy, base64.StdEncoding.EncodeToString(m.HostData[:]))
	if m.SEVDevice != "" {
		object += ",sev-device=" + strings.ReplaceAll(m.SEVDevice, ",", ",,") // as QEMU's options want it
	}
	if m.IDBlock != nil {
		object += "," + m.IDBlock.QEMU()
	}
	return object
}

// virtio adds what a device of a confidential guest needs: bounce buffers in
// memory that is shared with the host. Both platforms have it, to be alike.
func virtio(device string) string {
	return device + ",disable-legacy=on,iommu_platform=on"
}

func socket(id, file string) string {
	return fmt.Sprintf("socket,id=%s,path=%s,server=on,wait=off", id, file)
}

// disk is a read-only virtio disk that the guest finds by its serial.
func disk(serial, file string) []option {
	return []option{
		{"-blockdev", fmt.Sprintf("driver=file,node-name=%s-file,filename=%s,read-only=on", serial, file)},
		{"-blockdev", fmt.Sprintf("driver=raw,node-name=%s,file=%s-file,read-only=on", serial, serial)},
		{"-device", virtio(fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s", serial, serial))},
	}
}

func (m Machine) network() []option {
	n := m.Network
	if n.Bridge != "" {
		return []option{
			{"-netdev", fmt.Sprintf("tap,id=net0,fd=%d", tapFD)},
			{"-device", virtio("virtio-net-pci,netdev=net0,romfile=,mac=" + n.MAC)},
		}
	}
	guest := n.Guest.Addr()
	user := fmt.Sprintf("user,id=net0,%s,net=%s,host=%s,dns=%s,hostfwd=tcp:%s-%s:%d",
		n.ipv6(), n.Guest.Masked(), n.Gateway, n.Nameserver, n.Agent, guest, port.AgentPort)
	for _, f := range n.Forwards {
		user += fmt.Sprintf(",hostfwd=%s:%s:%d-%s:%d", f.Protocol, f.HostAddress, f.HostPort, guest, f.GuestPort)
	}
	return []option{
		{"-netdev", user},
		{"-device", virtio("virtio-net-pci,netdev=net0,romfile=")}, // no option ROM of the host's
	}
}

// ipv6 are the options of QEMU's IPv6 network. Its name server, which forwards to
// one of the host's by IPv6, is where QEMU puts it.
func (n Network) ipv6() string {
	if !n.Guest6.IsValid() {
		return "ipv6=off"
	}
	return fmt.Sprintf("ipv4=on,ipv6=on,ipv6-net=%s,ipv6-host=%s", n.Guest6.Masked(), n.Gateway6)
}

// portNames are the virtio-serial ports of a platform. The simulated PSP's is
// never offered to a guest that has a real one.
func (p Platform) portNames() []string {
	names := []string{port.ControlPort, port.StdoutPort, port.StderrPort}
	if p == Sim {
		names = append(names, port.PSPPort)
	}
	return names
}

func portSocket(name string) string {
	_, short, _ := strings.Cut(name, ".")
	return filepath.Join(runDir, short+".sock")
}

func (m Machine) ports() []option {
	options := []option{{"-device", virtio("virtio-serial-pci,id=serial0")}}
	for i, name := range m.Platform.portNames() {
		_, id, _ := strings.Cut(name, ".")
		options = append(options,
			option{"-chardev", socket(id, portSocket(name))},
			option{"-device", fmt.Sprintf("virtserialport,bus=serial0.0,nr=%d,chardev=%s,name=%s", i+1, id, name)},
		)
	}
	return options
}
