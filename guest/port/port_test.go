package port

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func says(err error, want string) bool {
	if want == "" {
		return err == nil
	}
	return err != nil && strings.Contains(err.Error(), want)
}

func TestSpecDisk(t *testing.T) {
	for _, n := range []int{0, 1, SpecDiskBlock - 13, SpecDiskBlock - 12, SpecDiskBlock - 11, 3 * SpecDiskBlock} {
		spec := bytes.Repeat([]byte{'s'}, n)
		disk := EncodeSpecDisk(spec)
		if len(disk)%SpecDiskBlock != 0 || len(disk) < 12+n || len(disk) >= 12+n+SpecDiskBlock {
			t.Errorf("%d bytes make a disk of %d", n, len(disk))
		}
		got, err := DecodeSpecDisk(iotest.OneByteReader(bytes.NewReader(disk)), n)
		if err != nil || !bytes.Equal(got, spec) {
			t.Errorf("%d bytes: got %d bytes, %v", n, len(got), err)
		}
	}
	want := "4b41545350454331" + "03000000" + "616263" + strings.Repeat("00", SpecDiskBlock-15)
	if got := hex.EncodeToString(EncodeSpecDisk([]byte("abc"))); got != want {
		t.Errorf("the disk of \"abc\" is %.40s…", got)
	}
}

func TestDecodeSpecDiskRefuses(t *testing.T) {
	good := EncodeSpecDisk([]byte("abc"))
	set := func(offset int, value byte) []byte {
		b := bytes.Clone(good)
		b[offset] = value
		return b
	}
	for _, tt := range []struct {
		name string
		disk []byte
		want string
	}{
		{"empty", nil, "reading its 12-byte head: EOF"},
		{"cut off in the head", good[:11], "reading its 12-byte head"},
		{"magic", set(7, '2'), `[0:8]: magic "KATSPEC2"`},
		{"longer than the limit", set(8, 101), "[8:12]: length 101 is more than 100"},
		{"4 GiB", set(11, 0xff), "[8:12]: length 4278190083 is more than 100"},
		{"cut off in the spec", good[:14], "reading 4096 bytes"},
		{"cut off in the padding", good[:SpecDiskBlock-1], "reading 4096 bytes"},
		{"padding, first byte", set(15, 1), "[15]: padding is not zero"},
		{"padding, last byte", set(SpecDiskBlock-1, 1), "[4095]: padding is not zero"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := DecodeSpecDisk(bytes.NewReader(tt.disk), 100)
			if got != nil || !says(err, tt.want) {
				t.Errorf("got %d bytes, %v; want %q", len(got), err, tt.want)
			}
		})
	}
}

func TestReportRequest(t *testing.T) {
	r := ReportRequest{ReportData: [64]byte{1, 63: 2}, VMPL: 3}
	b := r.Encode()
	want := "01" + strings.Repeat("00", 62) + "02" + "03000000" + strings.Repeat("00", 28)
	if got := hex.EncodeToString(b[:]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, err := DecodeReportRequest(b); got != r || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	for _, tt := range []struct {
		offset int
		value  byte
		want   string
	}{
		{0x40, 4, "[0x40:0x44]: VMPL 4 is above 3"},
		{0x43, 1, "[0x40:0x44]: VMPL"},
		{0x44, 1, "[0x44]: 0x01"},
		{0x5f, 0xff, "[0x5f]: 0xff"},
	} {
		bad := b
		bad[tt.offset] = tt.value
		if got, err := DecodeReportRequest(bad); got != (ReportRequest{}) || !says(err, tt.want) {
			t.Errorf("[%#x] = %d: got %v, %v; want %q", tt.offset, tt.value, got, err, tt.want)
		}
	}
}

func TestReportResponse(t *testing.T) {
	for _, certificates := range [][]byte{{}, {1, 2, 3}, make([]byte, MaxCertificates)} {
		r := ReportResponse{Report: [ReportSize]byte{2, ReportSize - 1: 9}, Certificates: certificates}
		stream := append(r.Encode(), "next"...)
		rest := bytes.NewReader(stream)
		got, err := ReadReportResponse(iotest.HalfReader(rest))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if rest.Len() != len("next") {
			t.Errorf("%d bytes are left, want those of the next answer", rest.Len())
		}
	}
}

func TestReadReportResponseRefuses(t *testing.T) {
	good := ReportResponse{Certificates: []byte{1}}.Encode()
	set := func(offset int, value byte) []byte {
		b := bytes.Clone(good)
		b[offset] = value
		return b
	}
	length := func(n uint32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b, n)
		return b
	}
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "reading its length: EOF"},
		{"cut off in the length", good[:3], "reading its length: unexpected EOF"},
		{"cut off", good[:len(good)-1], "reading 1217 bytes: unexpected EOF"},
		{"too short", length(reportResponseSize - 1), "length 1215 is not between 1216 and 66752"},
		{"too long", length(reportResponseSize + MaxCertificates + 1), "length 66753"},
		{"4 GiB", length(1<<32 - 1), "length 4294967295"},
		{"STATUS", set(4, 0x16), "[0x00:0x04]: STATUS 0x16"},
		{"REPORT_SIZE", set(8, 0), "[0x04:0x08]: REPORT_SIZE 1024, want 1184"},
		{"reserved, first byte", set(0x0c, 1), "[0x08:0x20]: reserved"},
		{"reserved, last byte", set(0x23, 1), "[0x08:0x20]: reserved"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ReadReportResponse(bytes.NewReader(tt.data))
			if got.Report != [ReportSize]byte{} || got.Certificates != nil || !says(err, tt.want) {
				t.Errorf("got %x…, %v; want %q", got.Report[:4], err, tt.want)
			}
		})
	}
}

func FuzzDecodeSpecDisk(f *testing.F) {
	for _, spec := range []string{"", "abc", strings.Repeat("s", SpecDiskBlock)} {
		disk := EncodeSpecDisk([]byte(spec))
		f.Add(disk)
		f.Add(disk[:len(disk)-1])
	}
	f.Fuzz(func(t *testing.T, disk []byte) {
		r := bytes.NewReader(disk)
		spec, err := DecodeSpecDisk(r, 1<<20)
		if err != nil {
			if spec != nil {
				t.Errorf("an error, and %d bytes", len(spec))
			}
			return
		}
		if read := disk[:len(disk)-r.Len()]; !bytes.Equal(EncodeSpecDisk(spec), read) {
			t.Error("what was accepted does not encode to itself")
		}
	})
}

func FuzzDecodeReportRequest(f *testing.F) {
	for _, r := range []ReportRequest{{}, {ReportData: [64]byte{1}, VMPL: 3}, {VMPL: 4}} {
		b := r.Encode()
		f.Add(b[:])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) != ReportRequestSize {
			return
		}
		b := [ReportRequestSize]byte(data)
		r, err := DecodeReportRequest(b)
		if err != nil {
			if r != (ReportRequest{}) {
				t.Errorf("an error, and %v", r)
			}
			return
		}
		if r.Encode() != b {
			t.Error("what was accepted does not encode to itself")
		}
	})
}

func FuzzReadReportResponse(f *testing.F) {
	for _, r := range []ReportResponse{{}, {Certificates: []byte{1, 2}}, {Status: 0x16}} {
		f.Add(r.Encode())
		f.Add(r.Encode()[:100])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		rsp, err := ReadReportResponse(r)
		if err != nil {
			if diff := cmp.Diff(ReportResponse{}, rsp); diff != "" {
				t.Errorf("an error, and an answer:\n%s", diff)
			}
			if errors.Is(err, io.EOF) && len(data) != 0 && len(data) != 4 {
				t.Errorf("%d bytes end with %v", len(data), err)
			}
			return
		}
		if read := data[:len(data)-r.Len()]; !bytes.Equal(rsp.Encode(), read) {
			t.Error("what was accepted does not encode to itself")
		}
	})
}
