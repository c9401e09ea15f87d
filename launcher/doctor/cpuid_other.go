//go:build !amd64

package doctor

import (
	"fmt"
	"runtime"
)

func cpuid(uint32) (Registers, error) {
	return Registers{}, fmt.Errorf("%s has no CPUID", runtime.GOARCH)
}
