package igvm

import "bytes"

// The guest's addresses in the tests' files.
const (
	snp, vsm, native, seves = 1, 2, 4, 8 // masks

	params   = 0x8000
	first    = 0x10000
	unshared = 0x20000
)

// plain is a file that all loaders measure alike with one vCPU: areas of one
// page, before the pages; the vCPU last.
func plain() *builder {
	b := &builder{version: 1}
	b.platform(snp, 2).platform(vsm, 1)
	b.policy(snp, 0x30000)
	b.required(snp, first, 0x20000)
	b.area(0, 0x1000)
	b.parameter(0x307, 0, 0).parameter(0x30c, 0, 8)
	b.insert(snp, params, 0)
	pages(b)
	return b.context(snp, 0xfffffffff000, 0, vmsa())
}

// pages adds a page of each sort.
func pages(b *builder) {
	b.data(snp|vsm, first, 1).data(snp, first+0x1000, 2)
	b.data(vsm, 0x40000, 3)
	b.page(snp, first+0x2000, 0, 0, nil).page(snp, first+0x3000, 0, 0, nil)
	b.page(snp, first+0x4000, 0, 0, bytes.Repeat([]byte{1}, 4096)) // the same data again
	b.page(snp, unshared, 2, 0, bytes.Repeat([]byte{4}, 4096))
	b.page(snp, 0x30000, 0, 1, nil)
	b.page(snp, 0x31000, 0, 2, bytes.Repeat([]byte{5}, 4096)).page(snp, 0x32000, 0, 3, nil)
}

func version2() *builder {
	b := plain()
	b.version = 2
	b.headers = append([]builtHeader{(&builder{}).platform(native, 0).headers[0]}, b.headers...)
	return b
}

// wide has an area of two pages.
func wide() *builder {
	b := &builder{version: 1}
	b.platform(snp, 2).policy(snp, 0x30000)
	b.area(7, 0x2000).insert(snp, params, 7)
	return b.data(snp, first, 1)
}

// shared has a page that is shared with the host.
func shared() *builder {
	b := &builder{version: 1}
	b.platform(snp, 2).policy(snp, 0x30000)
	b.data(snp, first, 1).page(snp, first+0x1000, 4, 0, bytes.Repeat([]byte{2}, 4096))
	return b
}

// huge has a page of 2 MiB of zeros, and one of secrets.
func huge() *builder {
	b := &builder{version: 1}
	b.platform(snp, 2).policy(snp, 0x30000)
	b.data(snp, first, 1).page(snp, 0x200000, 1, 0, nil).page(snp, 0x400000, 1, 1, nil)
	return b
}

// hugeData has a page of 2 MiB with data.
func hugeData() *builder {
	b := &builder{version: 1}
	b.platform(snp, 2).policy(snp, 0x30000)
	b.page(snp, 0x200000, 1, 0, bytes.Repeat([]byte{6}, 4096))
	return b
}

// alsoSEVES has a vCPU for SEV-ES beside the one for SEV-SNP.
func alsoSEVES() *builder {
	b := &builder{version: 1}
	b.platform(snp, 2).platform(seves, 5).policy(snp, 0x30000)
	b.data(snp|seves, first, 1)
	b.context(snp, 0xfffffffff000, 0, vmsa())
	b.context(seves, 0xfffffffff000, 0, vmsa(func(b []byte) { b[0x3b0] = 0 }))
	return b
}

// late inserts an area between pages.
func late() *builder {
	b := &builder{version: 1}
	b.platform(snp, 2).policy(snp, 0x30000)
	b.area(0, 0x1000)
	b.data(snp, 0x50000, 9).data(snp, first, 1).data(snp, first+0x1000, 2)
	b.insert(snp, params, 0)
	b.data(snp, first+0x2000, 3)
	return b
}

// early has the vCPU before the pages.
func early() *builder {
	b := &builder{version: 1}
	b.platform(snp, 2).policy(snp, 0x30000)
	b.context(snp, 0xfffffffff000, 0, vmsa())
	b.data(snp, first, 1)
	return b
}

// two has two vCPUs.
func two() *builder {
	b := &builder{version: 1}
	b.platform(snp, 2).policy(snp, 0x30000)
	b.data(snp, first, 1)
	b.context(snp, 0xfffffffff000, 0, vmsa())
	b.context(snp, 0xfffffffff000, 1, vmsa(func(b []byte) { b[0x178] = 4 }))
	return b
}

// free has no guest policy.
func free() *builder {
	b := &builder{version: 1}
	b.platform(snp, 2)
	b.data(snp, first, 1)
	return b
}
