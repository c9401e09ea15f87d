package kattest

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure"
)

// hostCPU reads the signature of this machine's processor, which QEMU gives to
// vCPUs with -cpu host, from the kernel's cpuinfo.
// Source: Linux 6.12, arch/x86/kernel/cpu/proc.c, show_cpuinfo: of the first
// processor the decimal fields "cpu family", "model" and "stepping".
func hostCPU(cpuinfo string) (measure.CPU, error) {
	data, err := cli.ReadFile(cpuinfo, 16<<20)
	if err != nil {
		return measure.CPU{}, fmt.Errorf("host: %w", err)
	}
	fields := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() && lines.Text() != "" { // of the first processor
		name, value, _ := strings.Cut(lines.Text(), ":")
		fields[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	cpu, err := measure.ParseFMS(fields["cpu family"] + "/" + fields["model"] + "/" + fields["stepping"])
	if err != nil {
		return measure.CPU{}, fmt.Errorf("host: %s: %w", cpuinfo, err)
	}
	return cpu, nil
}
