package verifier_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/kraudcloud/kattest/measure/idblock"
	"github.com/kraudcloud/kattest/verifier"
)

// policyFamilies are genuine reports that do not say what is demanded, and
// demands that no report meets.
func policyFamilies(l *lab) []family {
	var all []family
	for _, m := range l.layouts() {
		f := demands{lab: l, machine: m, twin: attempt{data: l.report(m), policy: l.policy(m)}}
		all = append(all, f.floors(), f.lowered(), f.guestPolicy(), f.platform(), f.fields(), f.nothing())
	}
	return all
}

// demands makes families of claims and of what is demanded of them.
type demands struct {
	*lab
	machine
	twin  attempt
	cases []hostile
}

func (f demands) family(name string) family {
	return family{name: f.String() + "/" + name, twin: f.twin, cases: f.cases}
}

// claim adds a report that says something else than the twin, signed.
func (f *demands) claim(name string, code verifier.Code, change func([]byte)) {
	a := attempt{data: f.report(f.machine, change), policy: f.twin.policy}
	f.cases = append(f.cases, hostile{name, a, verifier.Mismatch, code, true})
}

// demand adds the twin, of which something else is demanded.
func (f *demands) demand(name string, code verifier.Code, change func(*verifier.Policy)) {
	a := f.twin
	change(&a.policy)
	f.cases = append(f.cases, hostile{name, a, verifier.Mismatch, code, true})
}

// more says that the last attempt fails by other checks as well.
func (f *demands) more() { f.cases[len(f.cases)-1].alone = false }

// product demands something else of the machine's product.
func (f *demands) ofProduct(name string, code verifier.Code, change func(*verifier.ProductPolicy)) {
	f.demand(name, code, func(p *verifier.Policy) {
		demanded := p.Products[f.product]
		change(&demanded)
		p.Products = map[verifier.Product]verifier.ProductPolicy{f.product: demanded}
	})
}

// levels are the components of a TCB, and how each is reached.
var levels = map[string]func(*verifier.TCB) *byte{
	"fmc":        func(t *verifier.TCB) *byte { return &t.FMC },
	"bootloader": func(t *verifier.TCB) *byte { return &t.Bootloader },
	"tee":        func(t *verifier.TCB) *byte { return &t.TEE },
	"snp":        func(t *verifier.TCB) *byte { return &t.SNP },
	"microcode":  func(t *verifier.TCB) *byte { return &t.Microcode },
}

// floors demands more than the report has of each component, which a surplus of
// another does not make good.
func (f demands) floors() family {
	for name, level := range levels {
		for _, floor := range []struct {
			code verifier.Code
			of   func(*verifier.ProductPolicy) *verifier.TCB
		}{
			{verifier.CodeReportedTCB, func(p *verifier.ProductPolicy) *verifier.TCB { return &p.Reported }},
			{verifier.CodeCommittedTCB, func(p *verifier.ProductPolicy) *verifier.TCB { return &p.Committed }},
			{verifier.CodeLaunchTCB, func(p *verifier.ProductPolicy) *verifier.TCB { return &p.Launch }},
		} {
			title := fmt.Sprintf("%s, %s", floor.code, name)
			f.ofProduct(title, floor.code, func(p *verifier.ProductPolicy) { *level(floor.of(p))++ })
			f.ofProduct(title+" alone", floor.code, func(p *verifier.ProductPolicy) {
				*floor.of(p) = verifier.TCB{}
				*level(floor.of(p)) = 255
			})
		}
	}
	for name, least := range map[string]verifier.FirmwareVersion{
		"major": {Major: 2}, "minor": {Major: 1, Minor: 56}, "build": {Major: 1, Minor: 55, Build: 30},
	} {
		f.ofProduct("firmware "+name, verifier.CodeFirmware, func(p *verifier.ProductPolicy) { p.Firmware = least })
	}
	f.ofProduct("mitigation at launch", verifier.CodeLaunchMit, func(p *verifier.ProductPolicy) { p.LaunchMitigations |= 1 << 63 })
	f.ofProduct("mitigation", verifier.CodeCurrentMit, func(p *verifier.ProductPolicy) { p.CurrentMitigations |= 2 })
	return f.family("floor")
}

// lowered are reports of firmware that is older by one in one component.
func (f demands) lowered() family {
	for name, level := range levels {
		tcb := f.tcb()
		if *level(&tcb) == 0 {
			continue
		}
		*level(&tcb)--
		old, newer := f.encode(tcb), f.tcb()
		*level(&newer)++
		ahead := f.encode(newer)
		f.claim("launched at an older "+name, verifier.CodeLaunchTCB, func(b []byte) { copy(b[0x1f0:], old[:]) })
		f.claim("committed to an older "+name, verifier.CodeCommittedTCB, func(b []byte) { copy(b[0x1e0:], old[:]) })
		f.more() // it is provisional, too
		f.claim("provisional by "+name, verifier.CodeProvisional, func(b []byte) { copy(b[0x038:], ahead[:]) })
		f.claim("reports an older "+name, verifier.CodeReportedTCB, func(b []byte) { copy(b[0x180:], old[:]) })
		last := &f.cases[len(f.cases)-1]
		id := map[string]string{"fmc": "3.9", "bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8"}[name]
		last.policy.VCEK = f.leaf(f.machine, put(id, f.der(int(*level(&tcb)))))
	}
	reserved := map[verifier.Product][]int{verifier.Milan: {2, 3, 4, 5}, verifier.Genoa: {2, 3, 4, 5}, verifier.Turin: {4, 5, 6}}[f.product]
	for _, at := range reserved {
		f.claim(fmt.Sprintf("reserved byte %d of the launch TCB", at), verifier.CodeLaunchTCB, func(b []byte) { b[0x1f0+at] = 1 })
		f.claim(fmt.Sprintf("reserved byte %d of the committed TCB", at), verifier.CodeCommittedTCB, func(b []byte) { b[0x1e0+at] = 1 })
		f.more()
		f.claim(fmt.Sprintf("reserved byte %d of the reported TCB", at), verifier.CodeCertTCB, func(b []byte) { b[0x180+at] = 1 })
		f.more()
		f.cases[len(f.cases)-1].verdict = verifier.Forged
	}
	for name, at := range map[string]int{"build": 0, "minor": 1, "major": 2} {
		f.claim("older firmware by "+name, verifier.CodeFirmware, func(b []byte) { b[0x1e8+at]--; b[0x1ec+at]-- })
		f.claim("committed to older firmware by "+name, verifier.CodeFirmware, func(b []byte) { b[0x1ec+at]-- })
		f.more()
		f.claim("provisional firmware by "+name, verifier.CodeProvisional, func(b []byte) { b[0x1e8+at]++ })
	}
	if f.version >= 5 {
		for _, bit := range []byte{1, 4} {
			f.claim(fmt.Sprintf("mitigation %d off at launch", bit), verifier.CodeLaunchMit, func(b []byte) { b[0x1f8] &^= bit })
			f.claim(fmt.Sprintf("mitigation %d off", bit), verifier.CodeCurrentMit, func(b []byte) { b[0x200] &^= bit })
		}
	}
	return f.family("firmware")
}

// guestPolicy are policies under which the guest could be launched otherwise.
func (f demands) guestPolicy() family {
	set := func(bits, clear verifier.GuestPolicy) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint64(b[0x008:], uint64(labGuestPolicy&^clear|bits)) }
	}
	f.claim("DEBUG", verifier.CodeDebug, set(verifier.PolicyDebug, 0))
	f.claim("MIGRATE_MA", verifier.CodeMigration, set(verifier.PolicyMigrateMA, 0))
	f.claim("both", verifier.CodeDebug, set(verifier.PolicyDebug|verifier.PolicyMigrateMA, 0))
	f.more()
	f.claim("SMT demanded by the reference", verifier.CodePolicyBits, set(0, verifier.PolicySMT))
	f.claim("single socket", verifier.CodePolicyBits, set(verifier.PolicySingleSocket, 0))
	f.claim("bit 17 clear", verifier.CodePolicyBits, set(0, verifier.PolicyReserved1))
	for bit := 26; bit < 64; bit++ {
		f.claim(fmt.Sprint("bit ", bit), verifier.CodePolicyBits, set(1<<bit, 0))
	}
	for minor := verifier.GuestPolicy(0); minor < 0x37; minor++ {
		f.claim(fmt.Sprintf("ABI 1.%d", minor), verifier.CodePolicyABI, set(minor, 0xff))
	}
	f.claim("ABI 0.255", verifier.CodePolicyABI, set(0xff, 0xffff))
	f.demand("a later ABI", verifier.CodePolicyABI, func(p *verifier.Policy) { p.MinimumABI = verifier.ABIVersion{Major: 2} })
	for _, bit := range []verifier.GuestPolicy{verifier.PolicyCXLAllow, verifier.PolicyMemAES256XTS, verifier.PolicyRAPLDisable, verifier.PolicyCiphertextHidingDRAM, verifier.PolicyPageSwapDisable} {
		f.demand(fmt.Sprint("required ", bit), verifier.CodePolicyBits, func(p *verifier.Policy) { p.RequiredBits |= bit })
	}
	f.demand("forbidden SMT", verifier.CodePolicyBits, func(p *verifier.Policy) { p.ForbiddenBits |= verifier.PolicySMT })
	f.demand("required DEBUG", verifier.CodePolicyBits, func(p *verifier.Policy) { p.RequiredBits |= verifier.PolicyDebug })
	f.demand("forbidden by the reference", verifier.CodePolicyBits, func(p *verifier.Policy) {
		p.References = slices.Clone(p.References)
		p.References[0].ForbiddenBits = verifier.PolicySMT
	})
	f.demand("another VMPL", verifier.CodeVMPL, func(p *verifier.Policy) { p.VMPL = 1 })
	f.demand("a VMPL that there is not", verifier.CodeVMPL, func(p *verifier.Policy) { p.VMPL = 4 })
	return f.family("guest policy")
}

// platform are processors, providers and settings that are not accepted.
func (f demands) platform() family {
	for _, bit := range []verifier.PlatformInfo{verifier.PlatformSMT, verifier.PlatformECC, verifier.PlatformAliasCheck} {
		f.claim("without "+bit.String(), verifier.CodePlatform, func(b []byte) { b[0x040] &^= byte(bit) })
	}
	f.claim("TSME", verifier.CodePlatform, func(b []byte) { b[0x040] |= byte(verifier.PlatformTSME) })
	for bit := range 64 {
		if labPlatform>>bit&1 == 0 {
			f.demand(fmt.Sprint("required bit ", bit), verifier.CodePlatform, func(p *verifier.Policy) { p.RequiredPlatform |= 1 << bit })
			f.more() // bit 1 is forbidden
		} else {
			f.demand(fmt.Sprint("forbidden bit ", bit), verifier.CodePlatform, func(p *verifier.Policy) { p.ForbiddenPlatform |= 1 << bit })
		}
	}
	others := anyProduct()
	delete(others, f.product)
	f.demand("another product", verifier.CodeAllowedProduct, func(p *verifier.Policy) { p.Products = others })
	f.demand("no product", verifier.CodeAllowedProduct, func(p *verifier.Policy) { p.Products = nil })
	f.demand("the unknown product", verifier.CodeAllowedProduct, func(p *verifier.Policy) {
		p.Products = map[verifier.Product]verifier.ProductPolicy{verifier.UnknownProduct: {}}
	})
	other := machine{f.product, verifier.VCEK, f.version}.chip()
	other[0] ^= 1
	for name, chips := range map[string][][64]byte{"another chip": {other}, "zero for a chip": {{1}, {}}, "no chip's": make([][64]byte, 3)} {
		f.demand(name, verifier.CodeAllowedChip, func(p *verifier.Policy) { p.Chips = chips })
	}
	if f.key == verifier.VLEK {
		for _, ids := range [][]string{nil, {}, {""}, {"other.example"}, {"lab"}, {"LAB.EXAMPLE"}, {labCSPID + " "}, {labCSPID + "\x00"}, {"*"}, {"lab.*"}} {
			f.demand(fmt.Sprintf("providers %q", ids), verifier.CodeCSPID, func(p *verifier.Policy) { p.CSPIDs = ids })
		}
	}
	return f.family("platform")
}

// fields are what the guest is: each byte of what is demanded is looked at.
func (f demands) fields() family {
	for _, field := range []struct {
		code verifier.Code
		span
	}{
		{verifier.CodeMeasurement, span{0x090, 0x0c0}},
		{verifier.CodeHostData, span{0x0c0, 0x0e0}},
		{verifier.CodeReportData, span{0x050, 0x090}},
		{verifier.CodeIDKey, span{0x0e0, 0x110}},
		{verifier.CodeAuthorKey, span{0x110, 0x140}},
		{verifier.CodeMigrationAgent, span{0x160, 0x180}},
		{verifier.CodeFamilyID, span{0x010, 0x020}},
		{verifier.CodeImageID, span{0x020, 0x030}},
	} {
		for at := field.from; at < field.to; at++ {
			f.claim(fmt.Sprintf("%s, byte 0x%03x", field.code, at), field.code, func(b []byte) { b[at] ^= 0x40 })
			if field.code == verifier.CodeMeasurement { // the demand of the reference is gone with it
				f.more()
			}
		}
		f.claim(fmt.Sprintf("%s, zero", field.code), field.code, func(b []byte) { clear(b[field.from:field.to]) })
		f.more()
	}
	for svn := range uint32(7) {
		f.claim(fmt.Sprint("GUEST_SVN ", svn), verifier.CodeGuestSVN, func(b []byte) { binary.LittleEndian.PutUint32(b[0x004:], svn) })
	}
	f.claim("AUTHOR_KEY_EN clear", verifier.CodeAuthorKey, func(b []byte) { b[0x048] &^= 1 })
	f.demand("a later GUEST_SVN", verifier.CodeGuestSVN, func(p *verifier.Policy) { p.MinimumGuestSVN = 8 })
	f.demand("no keys", verifier.CodeGuestSVN, func(p *verifier.Policy) { p.IDKeys, p.AuthorKeys = nil, nil })
	f.more()
	f.demand("zero for keys", verifier.CodeIDKey, func(p *verifier.Policy) { p.IDKeys = []idblock.KeyDigest{{}} })
	f.demand("the author for the ID key", verifier.CodeIDKey, func(p *verifier.Policy) { p.IDKeys = p.AuthorKeys })
	agent := [32]byte(bytes.Repeat([]byte{0x3a}, 32))
	f.claim("a migration agent", verifier.CodeMigrationAgent, func(b []byte) { copy(b[0x160:], agent[:]) })
	return f.family("field")
}

// nothing are policies that leave out to say what they expect.
func (f demands) nothing() family {
	f.demand("no measurement", verifier.CodeMeasurement, func(p *verifier.Policy) { p.References = nil })
	f.demand("a measurement of zeros", verifier.CodeMeasurement, func(p *verifier.Policy) { p.References = make([]verifier.Reference, 1) })
	f.demand("other vCPUs", verifier.CodeMeasurement, func(p *verifier.Policy) { p.VCPUs = 2 })
	f.demand("computed without a match", verifier.CodeMeasurement, func(p *verifier.Policy) {
		p.References = nil
		p.Compute = func(context.Context, verifier.Report) ([]verifier.Reference, error) {
			return make([]verifier.Reference, 9), nil
		}
	})
	f.demand("no host data", verifier.CodeHostData, func(p *verifier.Policy) { p.HostData = nil })
	f.demand("host data of zeros", verifier.CodeHostData, func(p *verifier.Policy) { p.HostData = new([32]byte) })
	f.demand("no report data", verifier.CodeReportData, func(p *verifier.Policy) { p.ReportData = nil })
	f.demand("report data of zeros", verifier.CodeReportData, func(p *verifier.Policy) { p.ReportData = new([64]byte) })
	f.demand("a nonce", verifier.CodeNonce, func(p *verifier.Policy) { p.Nonce = labNonce })
	f.demand("an empty nonce", verifier.CodeNonce, func(p *verifier.Policy) { p.Nonce = []byte{} })
	f.demand("a quote", verifier.CodeTPMPolicy, func(p *verifier.Policy) { p.TPM = &verifier.TPMPolicy{} })
	f.demand("a connection", verifier.CodeTLSKey, func(p *verifier.Policy) { p.TLSKey = labTLSKey })
	f.cases[len(f.cases)-1].verdict = verifier.Forged
	f.demand("nothing at all", verifier.CodeMeasurement, func(p *verifier.Policy) { *p = verifier.Policy{Time: labTime} })
	f.more()
	f.demand("the chain alone", verifier.CodeAllowedProduct, func(p *verifier.Policy) {
		*p = verifier.Policy{Time: labTime, VCEK: p.VCEK, CRLs: p.CRLs, Simulated: p.Simulated}
	})
	f.more()
	f.demand("another time", verifier.CodeValidity, func(p *verifier.Policy) { p.Time = labTime.AddDate(30, 0, 0) })
	f.cases[len(f.cases)-1].verdict = verifier.Forged
	f.more()
	return f.family("nothing")
}
