package doctor

// execCPUID executes CPUID with subleaf 0. The kernel's cpuid driver would do
// without assembly, for root alone and where its module is loaded.
func execCPUID(leaf uint32) (eax, ebx, ecx, edx uint32)

func cpuid(leaf uint32) (Registers, error) {
	a, b, c, d := execCPUID(leaf)
	return Registers{a, b, c, d}, nil
}
