//go:build !amd64

package lanes

func hasAVX512() bool { return false }

func compress(*state, *block, *[80]uint64) { panic("no AVX-512") }

func compressConstant(*state, *[80]uint64) { panic("no AVX-512") }
