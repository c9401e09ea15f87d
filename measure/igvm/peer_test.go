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
			"plain", plain(), "7a11647836a891aee4431c6be316fdac79e7a0961af08f82a8481f8da68eb0a3", 1,
			"9479ea14d0b9c5218b21395cf68829b58f681f52daeae0732ab5626104220b5a5741964e7b11b96441bf9824175b1f22",
			"9479ea14d0b9c5218b21395cf68829b58f681f52daeae0732ab5626104220b5a5741964e7b11b96441bf9824175b1f22", IGVMMeasure,
		},
		{
			"version 2", version2(), "f8a997aa6539df63e287f1186f3a9210534869d89a516562e52330cc1ace39ab", 1,
			"9479ea14d0b9c5218b21395cf68829b58f681f52daeae0732ab5626104220b5a5741964e7b11b96441bf9824175b1f22",
			"9479ea14d0b9c5218b21395cf68829b58f681f52daeae0732ab5626104220b5a5741964e7b11b96441bf9824175b1f22", IGVMMeasure,
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
			"SEV-ES's vCPU", alsoSEVES(), "3f397c9d88c204ccaa5754f29d08db8d017c49fa34ab1945df24fcb05141277c", 1,
			"f5f0b09deacdeec9f8be4707c0e11aa83ce34d672e26a85423e2203cfd08f1f6ac1c384de250c9fcabf164db4d299485",
			"1c364fc88925c2d03ae79e6bb238461ad7bc5fa92fd0bcb5515e29a74d742840bb95509b95eb007e3a2745d56deb1eb4", OpenVMM,
		},
		{
			"area between pages", late(), "55c8e1f63072e1fbe44850b29c1bf483f6b0e563ec5a64589dd07b189024f2ea", 0,
			"f78dff7158d8536da0dce1920760c876eba51fcedc5447b8900d4efa6dac7a45d8eec18665f1bbbdc54f32451677ad49",
			"f78dff7158d8536da0dce1920760c876eba51fcedc5447b8900d4efa6dac7a45d8eec18665f1bbbdc54f32451677ad49", 0,
		},
		{
			"vCPU before pages", early(), "407be9b99a19f80b3254ddfb464e336cee2d751998ce86e1bc311058a4666abe", 1,
			"7a7a0ff9b04e84b533b884daf23ded68ffdd0224230a2aa1e30545de7d837a0f34117a9e10d1fe606945e16a616cd192",
			"7a7a0ff9b04e84b533b884daf23ded68ffdd0224230a2aa1e30545de7d837a0f34117a9e10d1fe606945e16a616cd192", 0,
		},
		{
			"two vCPUs", two(), "b8bea58d073ab346e4762511c50e3a53c9a7363ae0ad154aa175d42b16c38c5a", 2,
			"8478e32dc75c3bab87152408e58e45a3589932d5c7ee859fbc4ee7f6ccbb237b488b046f871eeb7ee3203eefece6a705",
			"8478e32dc75c3bab87152408e58e45a3589932d5c7ee859fbc4ee7f6ccbb237b488b046f871eeb7ee3203eefece6a705", IGVMMeasure,
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
