package probe

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"strings"
	"testing"
)

func TestPayloadIsAnEFIApplication(t *testing.T) {
	b := payload("hello")
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	opt, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok || f.Machine != pe.IMAGE_FILE_MACHINE_AMD64 || opt.Subsystem != pe.IMAGE_SUBSYSTEM_EFI_APPLICATION {
		t.Fatalf("machine %#x, optional header %+v", f.Machine, opt)
	}
	if len(f.Sections) != 1 || opt.SizeOfHeaders != headersSize || opt.AddressOfEntryPoint != f.Sections[0].VirtualAddress {
		t.Fatalf("sections %v, headers %d, entry point %#x", f.Sections, opt.SizeOfHeaders, opt.AddressOfEntryPoint)
	}
	text, err := f.Sections[0].Data()
	if err != nil {
		t.Fatal(err)
	}
	// The lea at 2 names where the message stands.
	message := 9 + int(int32(binary.LittleEndian.Uint32(text[5:])))
	if !bytes.HasPrefix(text[message:], []byte("hello\x00")) {
		t.Errorf("the code prints what stands at %#x: %q", message, text[message:message+8])
	}
}

func TestPayloadBoundsItsMessage(t *testing.T) {
	b := payload(strings.Repeat("x", 2*textSize))
	if len(b) != payloadSize || b[len(b)-1] != 0 {
		t.Errorf("%d bytes, the last is %#x", len(b), b[len(b)-1])
	}
}

// patch does to a kernel what QEMU does before it hands it to a guest without
// SEV. Source: QEMU 10.0.2, hw/i386/x86-common.c, x86_load_linux.
func patch(b []byte) []byte {
	b = bytes.Clone(b)
	le := binary.LittleEndian
	protocol, initrdMax := le.Uint16(b[0x206:]), le.Uint32(b[0x22c:])
	if string(b[0x202:0x206]) != "HdrS" || protocol < 0x203 || protocol >= 0x20c || b[0x211]&1 == 0 {
		return nil // taken for something else
	}
	if below := uint32(memoryMiB<<20 - 0x20000 - 0x8000); initrdMax >= below { // less the ACPI tables
		initrdMax = below - 1
	}
	le.PutUint32(b[0x228:], 0x20000)
	b[0x210] = 0xb0
	b[0x211] |= 0x80
	le.PutUint16(b[0x224:], 0x20000-0x10000-0x200)
	le.PutUint32(b[0x218:], (initrdMax-initrdSize)&^4095)
	le.PutUint32(b[0x21c:], initrdSize)
	return b
}

func TestQEMUChangesNothing(t *testing.T) {
	b := payload("hello")
	if !bytes.Equal(b, patch(b)) {
		t.Error("QEMU would change the payload: older firmwares would hash other bytes than the table names")
	}
	if setup := (int(b[0x1f1]) + 1) * 512; setup != headersSize {
		t.Errorf("setup part of %d bytes, want %d", setup, headersSize)
	}
}

// An option ROM has the program where its header says.
func TestROMHoldsTheProgram(t *testing.T) {
	program := payload("hello")
	b := romOf(program)
	le := binary.LittleEndian
	at, pcir := le.Uint16(b[0x16:]), le.Uint16(b[0x18:])
	if !bytes.HasPrefix(b[at:], program) || string(b[pcir:pcir+4]) != "PCIR" || pcir%4 != 0 {
		t.Errorf("program at %#x, PCIR at %#x", at, pcir)
	}
	if size := int(le.Uint16(b[2:])) * romUnit; size != len(b) || int(le.Uint16(b[pcir+0x10:]))*romUnit != size || len(b)&(len(b)-1) != 0 {
		t.Errorf("%d bytes, the header says %d", len(b), size)
	}
}
