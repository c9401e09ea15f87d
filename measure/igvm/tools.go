package igvm

// toolOrder is the order in which the two tools add directives: the file's.
func (f *File) toolOrder(l Loader) []int32 {
	mask := f.snpMask()
	var order []int32
	for at, d := range f.directives {
		switch {
		case l == OpenVMM && d.mask&mask == 0:
		case l == OpenVMM && kind(d.kind) == pageData && d.flags&flagShared != 0:
		default: // igvmmeasure takes SEV-ES's vCPUs for SEV-SNP's
			order = append(order, int32(at))
		}
	}
	return order
}

// toolRefuses reports what keeps one of the two tools from measuring the file.
func (f *File) toolRefuses(l Loader) []error {
	if l == OpenVMM {
		if f.policy == nil {
			return []error{&RefusedError{Loader: l, Reason: "it has no GUEST_POLICY for SEV-SNP"}}
		}
		return nil
	}
	for _, d := range f.directives {
		if kind(d.kind) == pageData && d.flags&flag2MiB != 0 && d.index != none {
			ref := d.ref()
			return []error{&RefusedError{Loader: l, Header: &ref, Reason: "it ends at a page of 2 MiB with data"}}
		}
	}
	return nil
}
