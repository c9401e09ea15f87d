package probe

import "encoding/binary"

// Sizes of the payload, in bytes.
const (
	headersSize = 0x400 // DOS, PE and Linux headers: what Linux calls the setup part
	textSize    = 0x200 // code and message
	payloadSize = headersSize + textSize
	textAddress = 0x1000 // of the section in memory: pages of their own
	imageSize   = textAddress + 0x1000
	maxMessage  = textSize - 0x40 // behind the code, with its NUL
)

// initrdSize is the size of the initrd that is loaded beside the payload. Where
// QEMU puts it stands in the payload's header.
const initrdSize = 4096

// payload is the smallest kernel that says that it runs: an EFI application
// that writes message to the first serial port and stops. QEMU takes it for a
// Linux kernel, by its setup header.
//
//	offset  size  field
//	0x000   2     "MZ"
//	0x03c   4     0x40, offset of the PE header
//	0x040   4     "PE\0\0"
//	0x044   20    COFF header: x86-64, 1 section
//	0x058   240   optional header: PE32+, EFI application, 16 empty directories
//	0x148   40    section .text: 0x200 bytes at 0x400, in memory at 0x1000
//	0x1f1   1     setup_sects, 1: the setup part is 1024 bytes
//	0x1fe   2     0xaa55
//	0x202   4     "HdrS"
//	0x206   2     version of the boot protocol, 0x203
//	0x210   1     type_of_loader, 0xb0
//	0x211   1     loadflags: LOADED_HIGH, CAN_USE_HEAP
//	0x218   4     ramdisk_image
//	0x21c   4     ramdisk_size
//	0x224   2     heap_end_ptr
//	0x228   4     cmd_line_ptr
//	0x22c   4     initrd_addr_max
//	0x400   0x40  code
//	0x440   …     message, NUL
//
// All little-endian. Without SEV, QEMU fills in the fields from 0x210 to 0x228
// before older firmwares see them; they are filled in here as QEMU does it, so
// that every firmware hashes the bytes that the table names.
// Sources: PE/COFF specification, revision 11; Linux 6.12,
// Documentation/arch/x86/boot.rst; QEMU 10.0.2, hw/i386/x86-common.c,
// x86_load_linux.
func payload(message string) []byte {
	b := make([]byte, payloadSize)
	copy(b, "MZ")
	le := binary.LittleEndian
	le.PutUint32(b[0x3c:], 0x40)
	peHeader(b[0x40:])
	setupHeader(b)
	copy(b[headersSize:], code())
	copy(b[headersSize+codeSize:], message[:min(len(message), maxMessage-1)])
	return b
}

// peHeader writes PE signature, COFF header, optional header and section table.
// The image has no relocations, and none is wanted: its code is position
// independent.
func peHeader(b []byte) {
	le := binary.LittleEndian
	copy(b, "PE\x00\x00")
	coff := b[4:]
	le.PutUint16(coff[0:], 0x8664) // x86-64
	le.PutUint16(coff[2:], 1)      // sections
	le.PutUint16(coff[16:], 240)   // size of the optional header
	le.PutUint16(coff[18:], 0x22)  // executable image, large addresses
	opt := coff[20:]
	le.PutUint16(opt[0:], 0x20b) // PE32+
	le.PutUint32(opt[4:], textSize)
	le.PutUint32(opt[16:], textAddress) // entry point
	le.PutUint32(opt[20:], textAddress) // base of code
	le.PutUint32(opt[32:], 0x1000)      // alignment of sections in memory
	le.PutUint32(opt[36:], 0x200)       // and in the file
	le.PutUint32(opt[56:], imageSize)
	le.PutUint32(opt[60:], headersSize)
	le.PutUint16(opt[68:], 10)     // EFI application
	le.PutUint16(opt[70:], 0x0100) // NX compatible
	le.PutUint32(opt[108:], 16)    // data directories
	section := opt[240:]
	copy(section, ".text")
	le.PutUint32(section[8:], textSize)
	le.PutUint32(section[12:], textAddress)
	le.PutUint32(section[16:], textSize)
	le.PutUint32(section[20:], headersSize) // in the file
	le.PutUint32(section[36:], 0x60000020)  // code, executable, readable
}

// What QEMU writes into the setup header of a kernel that it loads high.
const (
	realAddress    = 0x10000
	cmdlineAddress = 0x20000
	initrdMax      = 0x7ffffff // below the memory of every probe
	initrdAddress  = (initrdMax - initrdSize) &^ 0xfff
)

func setupHeader(b []byte) {
	le := binary.LittleEndian
	b[0x1f1] = headersSize/512 - 1
	le.PutUint16(b[0x1fe:], 0xaa55)
	copy(b[0x202:], "HdrS")
	le.PutUint16(b[0x206:], 0x203)
	b[0x210] = 0xb0 // QEMU
	b[0x211] = 0x81
	le.PutUint32(b[0x218:], initrdAddress)
	le.PutUint32(b[0x21c:], initrdSize)
	le.PutUint16(b[0x224:], cmdlineAddress-realAddress-0x200)
	le.PutUint32(b[0x228:], cmdlineAddress)
	le.PutUint32(b[0x22c:], initrdMax)
}

const codeSize = 0x40

// code prints what stands at code+0x40 up to its NUL, byte by byte as the
// 16550's line status (0x3fd, bit 5) allows, and stops for good.
func code() []byte {
	return []byte{
		0xfa,                                     // 00 cli: the firmware prints no more
		0xfc,                                     // 01 cld
		0x48, 0x8d, 0x35, 0x37, 0x00, 0x00, 0x00, // 02 lea rsi, [rip+0x37]: 0x40
		0x66, 0xba, 0xfd, 0x03, // 09 mov dx, 0x3fd
		0xec,       // 0d in al, dx
		0xa8, 0x20, // 0e test al, 0x20
		0x74, 0xfb, // 10 jz 0d
		0xac,       // 12 lodsb
		0x84, 0xc0, // 13 test al, al
		0x74, 0x07, // 15 jz 1e
		0x66, 0xba, 0xf8, 0x03, // 17 mov dx, 0x3f8
		0xee,       // 1b out dx, al
		0xeb, 0xeb, // 1c jmp 09
		0xf4,       // 1e hlt
		0xeb, 0xfd, // 1f jmp 1e
	}
}

// Sizes of an option ROM and its parts, in bytes. edk2 takes one of 2 KiB for none.
const (
	romHeader = 0x40
	romUnit   = 512
	romSize   = 8192
)

// romOf makes a PCI option ROM of an EFI program (PCI Firmware Specification 3.0,
// section 5.1; UEFI Specification 2.10, section 14.4.2).
//
//	offset  size  field
//	0x00    2     0x55, 0xaa
//	0x02    2     size, in units of 512 bytes: 16
//	0x04    4     0x0ef1: an EFI program
//	0x08    2     subsystem, 11: a driver of boot services
//	0x0a    2     machine, 0x8664
//	0x0c    2     compression, 0: none
//	0x16    2     offset of the program, 0x40
//	0x18    2     offset of the PCI data structure, 0x1c
//	0x1c    4     "PCIR"
//	0x20    4     vendor and device
//	0x26    2     length of this structure, 0x18
//	0x2c    2     size, in units of 512 bytes: 16
//	0x30    1     code type, 3: EFI
//	0x31    1     indicator, 0x80: the last image
//	0x40    …     program
func romOf(program []byte) []byte {
	b := make([]byte, romSize)
	le := binary.LittleEndian
	b[0], b[1] = 0x55, 0xaa
	le.PutUint16(b[0x02:], romSize/romUnit)
	le.PutUint32(b[0x04:], 0x0ef1)
	le.PutUint16(b[0x08:], 11)
	le.PutUint16(b[0x0a:], 0x8664)
	le.PutUint16(b[0x16:], romHeader)
	le.PutUint16(b[0x18:], 0x1c)
	copy(b[0x1c:], "PCIR")
	le.PutUint32(b[0x20:], 0x1044_1af4) // virtio-rng
	le.PutUint16(b[0x26:], 0x18)
	le.PutUint16(b[0x2c:], romSize/romUnit)
	b[0x30], b[0x31] = 3, 0x80
	copy(b[romHeader:], program)
	return b
}
