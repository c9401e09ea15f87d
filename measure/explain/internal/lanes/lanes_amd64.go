package lanes

import "golang.org/x/sys/cpu"

// hasAVX512 says that the processor has AVX-512F and the operating system saves
// its registers: x/sys/cpu asks CPUID and XCR0. The standard library keeps what
// it knows of this to itself.
func hasAVX512() bool { return cpu.X86.HasAVX512F }

// compress adds one block to each lane's state.
//
//go:noescape
func compress(state *state, block *block, k *[80]uint64)

// compressConstant adds one block, the same to each lane's state, of which kw are
// the message schedule's words with the round constants added.
//
//go:noescape
func compressConstant(state *state, kw *[80]uint64)
