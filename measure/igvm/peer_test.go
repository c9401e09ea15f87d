package igvm

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/kraudcloud/kattest/measure"
)

// Digests by the two public tools, built from their sources and run on the files
// that files_test.go describes; the SHA-256 is that of the file that they read.
//
//	igvmmeasure FILE measure --bare     coconut-svsm/svsm f4bc4bcd, tools/igvmmeasure
//	generate_snp_measurement            microsoft/igvm e6c3ff1c, igvm/src/measurement/snp.rs
//
// microsoft/igvm's IgvmFile::new_from_binary and serialize give each file again,
// byte by byte. QEMU's digests are those of either tool where QEMU's way with the
// file is the same; the others are in qemu_test.go.
func TestPeerVectors(t *testing.T) {
	for _, tt := range []struct {
		name        string
		file        *builder
		sum         string
		vcpus       int // of which the file has the state
		igvmmeasure string
		openvmm     string
		qemuAs      Loader // the tool that QEMU agrees with, if any
	}{
		{
			"plain", plain(), "1e95e8f349b8586a16809688cc24dc13c98a5f5dbd684d2f6fdb2abc3dbd43c1", 1,
			"226a42f40ece0bbf85fba8cdb3f9b41a1771aaba0edaf50dfa86bdfa1212fd55c466ddfd89845f3e58f6794521411221",
			"226a42f40ece0bbf85fba8cdb3f9b41a1771aaba0edaf50dfa86bdfa1212fd55c466ddfd89845f3e58f6794521411221", IGVMMeasure,
		},
		{
			"version 2", version2(), "7b3a5c19247d9b8296be467e02402134d43c8b8da299bdfcf894971e571f7d15", 1,
			"226a42f40ece0bbf85fba8cdb3f9b41a1771aaba0edaf50dfa86bdfa1212fd55c466ddfd89845f3e58f6794521411221",
			"226a42f40ece0bbf85fba8cdb3f9b41a1771aaba0edaf50dfa86bdfa1212fd55c466ddfd89845f3e58f6794521411221", IGVMMeasure,
		},
		{
			"area of two pages", wide(), "86a5a8c2b7e826c94e8c579ebc969410e55663a5ce55225c5648c24dac41718a", 0,
			"b750b798de304f7ba9ac0883271e378fca0bb20a81bee671e8e2acd12909dc23c80aee0ff45d49214d202fa5f07fe4b5",
			"5612690047dba372274f7db11e6a9b05675024f166bd9183ebd1c73f99f25a7db375617e06b11cdd0467654eb7a87676", 0,
		},
		{
			"shared page", shared(), "9618ace7bd11a414291d8ce96ce632aad92e768610c1f0bd7c29a259d924c499", 0,
			"018d8d836c002a5097006e6156d1d2284fc892f6432abc52f7cd2b8f3a764a83d47ae5ad7bb583262f62ea882ed38e58",
			"696f0fd963ac45c8fc25c3350c306b7ffe68fc0679fc8c40cf5804e5b6f31ccfb50ee6938ce6cf7a397020977e9df9f2", 0,
		},
		{
			"pages of 2 MiB", huge(), "cca4005b29bffd6ab158cb26530261343c4e9c8be4af72a05dd3e0c6470c60a9", 0,
			"b2856f48d031743b17b23523bddf786d8e8cee282b551f5452ffeee720050de8381773598738fcec1e462a85c59e5f13",
			"2482a42c9c258abac60240b4a6ce48e38e29e86d4dff651583f7ad3f0f5b84d46cb0f6036581c4ac45e4b05353c5c1c9", 0,
		},
		{ // igvmmeasure ends in a failed assertion
			"page of 2 MiB with data", hugeData(), "5542065c5c3420614915743bd6ef99640fa5b55445c6381afa9ddb297c75c4ff", 0,
			"", "ee915bc8f7435e4df27d147a49f863ff1933741bc02c15e42bd9fff2381bab37f0b560221ade494c386f2054c6a50e1d", 0,
		},
		{
			"SEV-ES's vCPU", alsoSEVES(), "440d6f46a1911743399a59b3c8cddfe78236fc1e28b0dc922c08754e3dd5309f", 1,
			"f05a26a614779482f70579f227a26d1420404b07ea1d6c4e586a79414ceec50a3eaed8f7a7baf5fba83c832fdc344555",
			"7db64cf9e8e3d6c8600e1f56348703a00398ed49278397f0929d151b4094403f8cd72a7cf7ced4372e9fffc45d122788", OpenVMM,
		},
		{
			"area between pages", late(), "55c8e1f63072e1fbe44850b29c1bf483f6b0e563ec5a64589dd07b189024f2ea", 0,
			"f78dff7158d8536da0dce1920760c876eba51fcedc5447b8900d4efa6dac7a45d8eec18665f1bbbdc54f32451677ad49",
			"f78dff7158d8536da0dce1920760c876eba51fcedc5447b8900d4efa6dac7a45d8eec18665f1bbbdc54f32451677ad49", 0,
		},
		{
			"vCPU before pages", early(), "921fbb5c04a0b37796d9f8263b762c171751385d3d04e5293a1cab1c7447e89f", 1,
			"c87d1921fb014eacd3086ee9e9b61981d890e68ecb46b32d344ec3ec25fe63e172a1254d0ab2376e516076c46272fa4e",
			"c87d1921fb014eacd3086ee9e9b61981d890e68ecb46b32d344ec3ec25fe63e172a1254d0ab2376e516076c46272fa4e", 0,
		},
		{
			"two vCPUs", two(), "ff17d55ac3b2f6408d2b500e9cb9fe822d81443d38340cb9433906086761a3b8", 2,
			"07a958092c18f6cb2d80657943f5b43e1bf2c05dfe1627888bf4b89e3fc4176d72c911b75f720758c9186f3d02b25711",
			"07a958092c18f6cb2d80657943f5b43e1bf2c05dfe1627888bf4b89e3fc4176d72c911b75f720758c9186f3d02b25711", IGVMMeasure,
		},
		{ // microsoft/igvm: no SNP guest policy found in initialization headers
			"no policy", free(), "9747a05cc29139b84ecb3e5145343ab89db374effdc94ade57f681f14c7fa2ec", 0,
			"696f0fd963ac45c8fc25c3350c306b7ffe68fc0679fc8c40cf5804e5b6f31ccfb50ee6938ce6cf7a397020977e9df9f2", "", 0,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := tt.file.build()
			if sum := sha256.Sum256(file); hex.EncodeToString(sum[:]) != tt.sum {
				t.Fatalf("the file has SHA-256 %x, the vectors are for %s", sum, tt.sum)
			}
			want := map[Loader]string{IGVMMeasure: tt.igvmmeasure, OpenVMM: tt.openvmm}
			if tt.qemuAs != 0 {
				want[QEMU] = want[tt.qemuAs]
			}
			f := mustOpen(t, file)
			for l, digest := range want {
				i, err := f.Load(l)
				if digest == "" {
					if refused := (*RefusedError)(nil); !errors.As(err, &refused) || refused.Loader != l {
						t.Errorf("%v: %v, want it refused", l, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				vcpus := tt.vcpus
				if tt.name == "SEV-ES's vCPU" && l == IGVMMeasure {
					vcpus = 2
				}
				got, err := i.Measure(vcpus, measure.CPU{})
				if err != nil {
					t.Fatal(err)
				}
				if got.String() != digest {
					t.Errorf("%v: %v, want %s", l, got, digest)
				}
			}
		})
	}
}
