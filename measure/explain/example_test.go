package explain_test

import (
	"context"
	"fmt"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/explain"
)

func ExampleSearch() {
	state := measure.FirmwareState{Size: 1 << 20, ResetVector: 0x80b004, HashTable: 0x810c00, Sections: []measure.Section{
		{GPA: 0x810000, Size: 0x1000, Type: measure.SectionKernelHashes},
	}}
	fw, err := state.Firmware()
	if err != nil {
		panic(err)
	}
	expected := measure.Shape{VMM: measure.QEMU, VCPUs: 1, CPU: measure.SignatureCPU(0x800f12), GuestFeatures: 1}
	launched := expected
	launched.VCPUs = 96
	digest, err := measure.Measure(fw, nil, launched)
	if err != nil {
		panic(err)
	}

	answer, err := explain.Search(context.Background(), digest, explain.Space{
		Sources: []explain.Source{{Name: "release.json", Firmware: fw, Kernel: measure.Hash{1}, Expected: []measure.Shape{expected}}},
		CPUs:    explain.KnownCPUs(), Features: explain.LikelyFeatures(), VCPUs: measure.MaxVCPUs,
	}, explain.Options{})
	if err != nil {
		panic(err)
	}
	for _, d := range answer.Explanation.Differences {
		fmt.Println(d.Meaning)
	}
	// Output:
	// kernel hashes were off: the digest says nothing of kernel, initrd and command line
	// launched with 96 vCPUs; expected of release.json: 1
}
