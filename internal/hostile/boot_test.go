package hostile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure/stack"
)

// lie is one of the host's, to a guest that boots.
type lie struct {
	name string
	tell func(*host) error // nil is the truth
	want string            // why the guest does not run; empty where the lie is borne
}

// family are lies about one thing, to guests that read /data/blob and end. The first
// one is their twin: what the others do, without the lie.
type family struct {
	name string
	lies []lie
	runs bool // they are told to guests that run, by a test of their own
}

func families() []family {
	return []family{
		{"boot", bootLies(), false},
		{"spec", specLies(), false},
		{"spec disk", specDiskLies(), false},
		{"root disk", rootDiskLies(), false},
		{"ports", portLies(), false},
		{"devices", deviceLies(), false},
		{"psp", pspLies(), false},
		{"reports", reportLies(), true},
		{"run", runLies(), true},
	}
}

func find(name string) (lie, error) {
	of, name, _ := strings.Cut(name, "/")
	for _, f := range families() {
		if i := slices.IndexFunc(f.lies, func(l lie) bool { return l.name == name }); f.name == of && i >= 0 {
			return f.lies[i], nil
		}
	}
	return lie{}, fmt.Errorf("no lie %q of family %q", name, of)
}

// The guest that boots does not run its workload, and says why: to its host, and on
// its console.
func TestBoot(t *testing.T) {
	t.Parallel()
	dir := summon(t, nil, "read", "/data/blob")
	for _, f := range families() {
		if f.runs {
			continue
		}
		for _, l := range f.lies {
			t.Run(f.name+"/"+l.name, func(t *testing.T) {
				t.Parallel()
				r, console := boot(t, dir, f.name+"/"+l.name)
				if l.want == "" {
					r.want(t, 0, "65536 bytes")
					return
				}
				r.want(t, 5, l.want)
				if strings.Contains(r.said, "65536 bytes") {
					t.Errorf("the workload ran:\n%s", r.said)
				}
				if f.name == "boot" { // its guest has no word: the firmware stops
					return
				}
				for _, text := range []string{"msg=refused reason=", "reboot: Power down"} {
					if !strings.Contains(console, text) {
						t.Errorf("no %q on the console:\n%s", text, r.said)
					}
				}
			})
		}
	}
}

// What is booted is not what the hash table says, which is what is measured. Where the
// table fits, the measurement is another: see internal/e2e.
func bootLies() []lie {
	const refused = "the firmware refused"
	const nothing = "the firmware boots nothing"
	flip := func(file string, at int) func(*host) error {
		return func(h *host) error {
			data, err := os.ReadFile(filepath.Join(vm.StackDir, file))
			if err != nil {
				return err
			}
			data[(at+len(data))%len(data)] ^= 1
			if err := os.WriteFile("run/"+file, data, 0o600); err != nil {
				return err
			}
			return h.replace(filepath.Join(vm.StackDir, file), "run/"+file)
		}
	}
	cmdline := func(old, new string) func(*host) error {
		return func(h *host) error { return h.replace(old, new) }
	}
	table := func(*host) error {
		return rewrite("run/hashes.bin", func(b []byte) []byte { b[len(b)-40] ^= 1; return b })
	}
	return []lie{
		{"as it is", nil, ""},
		{"kernel", flip(stack.Kernel, 0x10), refused},
		{"kernel's end", flip(stack.Kernel, -1), refused},
		{"initrd", flip(stack.Initrd, -1), refused},
		{"no initrd", func(h *host) error { return h.drop(filepath.Join(vm.StackDir, stack.Initrd)) }, refused},
		{"command line with a key more", cmdline(" quiet ", " quiet debug "), refused},
		{"command line with a key doubled", cmdline("lockdown=integrity", "lockdown=integrity lockdown=none"), refused},
		{"command line without a key", cmdline(" lockdown=integrity", ""), refused},
		{"hash in the table", table, refused},
		{"emptied table", func(*host) error {
			return rewrite("run/hashes.bin", func(b []byte) []byte { clear(b); return b })
		}, nothing},
		{"no table", func(h *host) error { return h.drop("loader,") }, nothing},
		{"table of another form", func(*host) error {
			return rewrite("run/hashes.bin", func(b []byte) []byte { b[0] ^= 1; return b })
		}, nothing},
		{"no kernel", func(h *host) error {
			for _, value := range []string{filepath.Join(vm.StackDir, stack.Kernel), filepath.Join(vm.StackDir, stack.Initrd), "console=ttyS0"} {
				if err := h.drop(value); err != nil {
					return err
				}
			}
			return nil
		}, refused},
	}
}

// respec puts an altered spec on the spec disk.
func respec(change func([]byte) []byte) ([]byte, error) {
	spec, err := os.ReadFile(vm.SpecFile)
	if err != nil {
		return nil, err
	}
	changed := change(bytes.Clone(spec))
	if bytes.Equal(changed, spec) {
		return nil, fmt.Errorf("the spec is as it was: %s", spec)
	}
	return changed, os.WriteFile("run/spec.img", port.EncodeSpecDisk(changed), 0o600)
}

func text(old, new string) func([]byte) []byte {
	return func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(new), 1) }
}

// other hands over another spec than it launches with.
func other(change func([]byte) []byte) func(*host) error {
	return func(*host) error {
		_, err := respec(change)
		return err
	}
}

// fitting launches with the spec that it hands over.
func fitting(change func([]byte) []byte) func(*host) error {
	return func(h *host) error {
		spec, err := respec(change)
		if err != nil {
			return err
		}
		digest := pod.Digest(spec)
		return h.psp(func(_ int, request, answer []byte) ([]byte, error) {
			return launched(request, answer, func(_ *[48]byte, hostData *[32]byte, _ *uint64) { *hostData = digest })
		})
	}
}

// member sets or removes a member at the spec's top, and keeps the form canonical.
func member(name string, value any) func([]byte) []byte {
	return func(b []byte) []byte {
		var all map[string]any
		if err := json.Unmarshal(b, &all); err != nil {
			return b
		}
		if all[name] = value; value == nil {
			delete(all, name)
		}
		changed, err := json.Marshal(all)
		if err != nil {
			return b
		}
		return changed
	}
}

func specLies() []lie {
	const digest = "HOST_DATA of the report is"
	return []lie{
		{"another that fits", fitting(text(`"FROM_IMAGE=yes"`, `"FROM_IMAGE=no"`)), ""},
		{"argument more", other(text(`"/data/blob"`, `"/data/blob","/etc/passwd"`)), digest},
		{"variable another", other(text(`"FROM_IMAGE=yes"`, `"FROM_IMAGE=no"`)), digest},
		{"member removed", other(member("network", nil)), digest},
		{"member added", other(member("privileged", true)), digest},
		{"space more", other(text(`,`, `, `)), digest},
		{"unknown member", fitting(member("privileged", true)), `unknown member "privileged"`},
		{"no process", fitting(member("process", nil)), "process.args"},
		{"members in another order", fitting(func(b []byte) []byte {
			console, rest, _ := bytes.Cut(b[1:], []byte(","))
			return slices.Concat([]byte("{"), bytes.TrimSuffix(rest, []byte("}")), []byte(","), console, []byte("}"))
		}), "not in canonical form"},
		{"member twice", fitting(text(`{`, `{"console":"output",`)), `member "console" stands twice`},
		{"member in another case", fitting(text(`"console"`, `"Console"`)), `unknown member "Console"`},
		{"data behind it", fitting(func(b []byte) []byte { return append(b, "{}"...) }), "launch spec: "},
		{"capability over the guest", fitting(text(`"capabilities":["CAP_CHOWN"`, `"capabilities":["CAP_SYS_ADMIN"`)), "CAP_SYS_ADMIN"},
		{"another version", fitting(text(`launch-spec.v1+json`, `launch-spec.v2+json`)), "mediaType"},
		{"console that is unknown", fitting(text(`"output"`, `"keyboard"`)), "console"},
		{"image without blocks", fitting(func(b []byte) []byte {
			before, after, _ := bytes.Cut(b, []byte(`"dataBlocks":`))
			return slices.Concat(before, []byte(`"dataBlocks":0`), after[bytes.IndexByte(after, ','):])
		}), "dataBlocks"},
	}
}

// specDiskLies are about the form of the disk.
func specDiskLies() []lie {
	disk := func(change func([]byte) []byte) func(*host) error {
		return func(*host) error { return rewrite("run/spec.img", change) }
	}
	at := func(offset int, data ...byte) func(*host) error {
		return disk(func(b []byte) []byte { copy(b[offset:], data); return b })
	}
	return []lie{
		{"as it is", disk(func(b []byte) []byte { return b }), ""},
		{"magic", at(0, 'k'), "[0:8]: magic"},
		{"length above the limit", at(8, 0xff, 0xff, 0xff, 0xff), "[8:12]: length 4294967295 is more than 1048576"},
		{"length above the disk", at(8, 0, 0, 1, 0), "spec disk: reading"},
		{"padding", at(4095, 1), "padding is not zero"},
		{"nothing but zeros", disk(func(b []byte) []byte { clear(b); return b }), "[0:8]: magic"},
		{"two of them", func(h *host) error {
			return h.add("-blockdev", "driver=file,node-name=twin,filename=run/spec.img,read-only=on",
				"-device", "virtio-blk-pci,drive=twin,serial=spec,disable-legacy=on,iommu_platform=on")
		}, `two devices are called "spec"`},
		{"that is the root disk", func(h *host) error {
			if err := h.replace("serial=spec", "serial=was"); err != nil {
				return err
			}
			if err := h.replace("serial=root", "serial=spec"); err != nil {
				return err
			}
			return h.replace("serial=was", "serial=root")
		}, "[0:8]: magic"},
	}
}

func rootDiskLies() []lie {
	disk := func(change func([]byte) []byte) func(*host) error {
		return func(*host) error { return rewrite(vm.RootFile, change) }
	}
	flip := func(at func([]byte) int) func(*host) error {
		return disk(func(b []byte) []byte { b[at(b)] ^= 1; return b })
	}
	// tree is where the hash tree begins: behind the spec's number of blocks.
	tree := func([]byte) int {
		data, err := os.ReadFile(vm.SpecFile)
		if err != nil {
			return 0
		}
		spec, err := pod.Parse(data)
		if err != nil {
			return 0
		}
		return int(spec.Image.Verity.DataBlocks) * vm.BlockSize
	}
	layer := func(driver string) func(*host) error {
		return func(h *host) error {
			if err := h.add("-blockdev", driver+",node-name=between,read-only=on"); err != nil {
				return err
			}
			return h.replace("drive=root", "drive=between")
		}
	}
	return []lie{
		{"as it is", disk(func(b []byte) []byte { return b }), ""},
		{"grown", disk(func(b []byte) []byte { return append(b, bytes.Repeat([]byte{0xa5}, 1<<20)...) }), ""},
		{"slow", func(h *host) error {
			if err := h.add("-object", "throttle-group,id=slow,x-iops-read=200"); err != nil {
				return err
			}
			return layer("driver=throttle,file=root,throttle-group=slow")(h)
		}, ""},
		{"superblock", flip(func([]byte) int { return 1024 + 100 }), "dm-verity: the root disk does not hold the image"},
		{"hash tree's root", flip(tree), "dm-verity"},
		{"hash tree and data swapped", disk(func(b []byte) []byte {
			at := tree(b)
			return append(bytes.Clone(b[at:]), b[:at]...)
		}), "dm-verity"},
		{"truncated", disk(func(b []byte) []byte { return b[:len(b)/8192*4096] }), "dm-verity"},
		{"without its tree", disk(func(b []byte) []byte { return b[:tree(b)] }), "dm-verity"},
		{"zeros", disk(func(b []byte) []byte { return make([]byte, len(b)) }), "dm-verity"},
		{"another's", disk(func(b []byte) []byte { return bytes.Repeat([]byte("kattest\n"), len(b)/8) }), "dm-verity"},
		{"failing", layer("driver=blkdebug,image=root,inject-error.0.event=none,inject-error.0.iotype=read"), "image: "},
		{"two of them", func(h *host) error {
			return h.add("-blockdev", "driver=file,node-name=twin,filename="+vm.RootFile+",read-only=on",
				"-device", "virtio-blk-pci,drive=twin,serial=root,disable-legacy=on,iommu_platform=on")
		}, `two devices are called "root"`},
		{"none", func(h *host) error { return h.replace("serial=root", "serial=toor") }, `no device is called "root"`},
	}
}

// portLies are about the virtio-serial ports and the console: what a host says there
// that no launcher says, and what it does not read.
func portLies() []lie {
	flood := func(name string, line []byte, times int) func(*host) error {
		return func(h *host) error {
			return h.between(name, func(guest, launcher net.Conn) error {
				go func() {
					for range times {
						if _, err := guest.Write(line); err != nil {
							return
						}
					}
				}()
				return both(guest, launcher)
			})
		}
	}
	return []lie{
		{"as they are", func(h *host) error { return h.between(port.ControlPort, both) }, ""},
		{"a flood of lines", flood(port.ControlPort, []byte("{\"name\":\"started\"}\nSTOP\nstop \n"), 1<<16), ""},
		{"a line without end", flood(port.ControlPort, bytes.Repeat([]byte{'s'}, 1<<16), 1<<8), ""},
		{"a flood on the console", flood("kattest.console", []byte("\x03\x04\x1a\x1croot\n"), 1<<14), ""},
		{"a flood on the output's port", flood(port.StdoutPort, bytes.Repeat([]byte{0}, 1<<16), 1<<8), ""},
		{"stop before the start", flood(port.ControlPort, []byte("stop\n"), 1), "the host asked to stop before the container was started"},
		{"no PSP", func(h *host) error { return h.replace("name="+port.PSPPort, "name=psp") }, `no device is called "kattest.psp"`},
	}
}

// deviceLies are about the rest of the machine.
func deviceLies() []lie {
	return []lie{
		{"a disk more", func(h *host) error {
			return h.add("-blockdev", "driver=null-co,node-name=more,size=1048576,read-zeroes=on",
				"-device", "virtio-blk-pci,drive=more,serial=more,disable-legacy=on,iommu_platform=on")
		}, ""},
		{"clock of 1971", func(h *host) error { return h.add("-rtc", "base=1971-01-01") }, ""},
		{"clock of 2099", func(h *host) error { return h.add("-rtc", "base=2099-12-31") }, ""},
		{"network with a server of addresses and names that lie", func(h *host) error {
			return h.replace("user,id=net0,", "user,id=net0,hostname=liar,dnssearch=liar.example,")
		}, ""},
		{"no network", func(h *host) error {
			if err := h.drop("user,id=net0"); err != nil {
				return err
			}
			return h.drop("virtio-net-pci,")
		}, "finding eth0"},
	}
}

// Each family has its twin, and all together are as many as the suite is to have.
func TestFamilies(t *testing.T) {
	lies := 0
	for _, f := range families() {
		if f.lies[0].want != "" {
			t.Errorf("%s: the first one is no twin", f.name)
		}
		lies += len(f.lies) - 1
	}
	if lies < 60 {
		t.Errorf("%d lies to guests that boot, want 60", lies)
	}
	t.Logf("%d lies to guests that boot", lies)
}
