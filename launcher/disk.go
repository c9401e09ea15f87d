package launcher

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/launcher/vm"
)

// Disk is one that the guest writes to, encrypted.
type Disk struct {
	Serial string
	File   string // from the VM's folder on
	// Scratch is the size in bytes of one that is made for each run, and 0 of one
	// that is there.
	Scratch uint64
}

// disksOf are the disks that the spec asks for, as far as it can be read. A
// volume for which vm.json names no disk is missing: the guest will say so.
func disksOf(v *vm.VM) []Disk {
	var disks []Disk
	if v.Spec.Scratch != nil {
		disks = append(disks, Disk{port.ScratchDisk, scratchDisk, v.Spec.Scratch.Size})
	}
	for _, m := range v.Spec.Volumes() {
		if file := v.Config.VolumeFile(m.Name); file != "" {
			disks = append(disks, Disk{port.VolumeDisk(m.Name), file, 0})
		}
	}
	return disks
}

// options make a virtio disk that the guest finds by its serial. QEMU locks the
// file: no second guest has it at a time.
// Source: QEMU 10.0, qapi/block-core.json, BlockdevOptionsFile.
func (d Disk) options() []option {
	file := filepath.Clean(d.File)
	if !filepath.IsAbs(file) {
		file = "./" + file // else it might be taken for a protocol
	}
	blockdev := fmt.Sprintf("driver=file,node-name=%s-file,filename=%s,locking=on,discard=unmap",
		d.Serial, strings.ReplaceAll(file, ",", ",,"))
	raw := fmt.Sprintf("driver=raw,node-name=%s,file=%s-file", d.Serial, d.Serial)
	if d.Scratch != 0 {
		blockdev += ",cache.no-flush=on"
		raw += ",cache.no-flush=on"
	}
	return []option{
		{"-blockdev", blockdev},
		{"-blockdev", raw},
		// Where the host's disk is full, QEMU would stop the guest until it is not.
		{"-device", virtio(fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s,werror=report,rerror=report", d.Serial, d.Serial))},
	}
}
