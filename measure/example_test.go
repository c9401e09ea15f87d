package measure_test

import (
	"fmt"
	"log"
	"os"

	"github.com/kraudcloud/kattest/measure"
)

// The launch digests of a boot stack with one vCPU and with four.
func Example() {
	image, err := os.ReadFile("OVMF.fd")
	if err != nil {
		log.Fatal(err)
	}
	firmware, err := measure.ParseFirmware(image)
	if err != nil {
		log.Fatal(err) // a *measure.FirmwareError tells each problem
	}
	kernel, err := os.Open("vmlinuz")
	if err != nil {
		log.Fatal(err)
	}
	defer kernel.Close()
	initrd, err := os.Open("initrd.cpio")
	if err != nil {
		log.Fatal(err)
	}
	defer initrd.Close()
	hashes, err := measure.HashKernel(kernel, initrd, "console=ttyS0")
	if err != nil {
		log.Fatal(err)
	}
	cpu, err := measure.ParseCPU("EPYC-Genoa")
	if err != nil {
		log.Fatal(err)
	}
	shapes := []measure.Shape{
		{VMM: measure.QEMU, VCPUs: 1, CPU: cpu, GuestFeatures: measure.SNPActive},
		{VMM: measure.QEMU, VCPUs: 4, CPU: cpu, GuestFeatures: measure.SNPActive},
	}
	digests, err := measure.Matrix(firmware, &hashes, shapes)
	if err != nil {
		log.Fatal(err)
	}
	for i, d := range digests {
		fmt.Println(shapes[i].VCPUs, d)
	}
}
