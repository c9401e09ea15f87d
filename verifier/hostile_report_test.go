package verifier_test

import (
	"bytes"
	"crypto/elliptic"
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"
	"testing"

	"github.com/kraudcloud/kattest/verifier"
)

// reportFamilies are reports that were changed, behind the processor's back or
// by a processor that says what none should.
func reportFamilies(l *lab) []family {
	var all []family
	for _, m := range l.machines() {
		f := reports{lab: l, machine: m, twin: attempt{data: l.report(m), policy: l.policy(m)}}
		all = append(all, f.reserved(), f.sizes(), f.versions(), f.levels(), f.algorithms(), f.signers())
		if l.prefix == "" && slices.Contains(l.layouts(), m) {
			all = append(all, f.flipped(), f.scalars())
		}
	}
	return all
}

// reports makes families of a machine's reports.
type reports struct {
	*lab
	machine
	twin  attempt
	cases []hostile
}

func (f reports) family(name string) family {
	return family{name: f.String() + "/" + name, twin: f.twin, cases: f.cases}
}

// add adds a report, as it is.
func (f *reports) add(name string, report []byte, v verifier.Verdict, code verifier.Code, alone bool) {
	f.cases = append(f.cases, hostile{name, attempt{data: report, policy: f.twin.policy}, v, code, alone})
}

// forge adds a report that was changed after it was signed.
func (f *reports) forge(name string, change func([]byte), v verifier.Verdict, code verifier.Code) {
	b := bytes.Clone(f.twin.data)
	change(b)
	f.add(name, b, v, code, false)
}

// signed adds a report that was changed before it was signed.
func (f *reports) signed(name string, change func([]byte), v verifier.Verdict, code verifier.Code) {
	f.add(name, f.report(f.machine, change), v, code, true)
}

// span is a range of bytes of a report.
type span struct{ from, to int }

func (s span) holds(offset int) bool { return s.from <= offset && offset < s.to }

// reservedIn is what a version of reports reserves, the signature's padding
// included. Source: AMD 56860 rev 1.58, section 7.3, tables 23 and 149.
func reservedIn(version uint32) []span {
	all := []span{{0x04c, 0x050}, {0x18b, 0x1a0}, {0x1eb, 0x1ec}, {0x1ef, 0x1f0}, {0x208, 0x2a0}, {0x2d0, 0x2e8}, {0x318, 0x4a0}}
	if version < 3 {
		all = append(all, span{0x188, 0x18b})
	}
	if version < 5 {
		all = append(all, span{0x1f8, 0x208})
	}
	return all
}

// reserved sets a bit of every byte that is reserved.
func (f reports) reserved() family {
	for _, s := range reservedIn(f.version) {
		for at := s.from; at < s.to; at++ {
			f.forge(fmt.Sprintf("byte 0x%03x", at), func(b []byte) { b[at] ^= 1 << (at % 8) }, verifier.Malformed, verifier.CodeReserved)
		}
	}
	f.signed("signed", func(b []byte) { b[0x29f] = 1 }, verifier.Malformed, verifier.CodeReserved)
	return f.family("reserved")
}

// flipped flips the lowest and the highest bit of every byte that is signed and
// not reserved. Those of the version are for versions.
func (f reports) flipped() family {
	for at := 4; at < 0x2a0; at++ {
		if slices.ContainsFunc(reservedIn(f.version), func(s span) bool { return s.holds(at) }) {
			continue
		}
		if testing.Short() && at%8 != 0 {
			continue
		}
		for _, bit := range []byte{0x01, 0x80} {
			v, code := whenFlipped(at, bit)
			f.forge(fmt.Sprintf("byte 0x%03x, bit 0x%02x", at, bit), func(b []byte) { b[at] ^= bit }, v, code)
		}
	}
	return f.family("flipped")
}

// whenFlipped is what refuses a report with a flipped bit: its form where that
// leaves no report that a processor makes, its signature elsewhere.
func whenFlipped(at int, bit byte) (verifier.Verdict, verifier.Code) {
	field := func(from, to int, low byte) bool { return span{from, to}.holds(at) && (at != from || bit > low) }
	switch {
	case field(0x030, 0x034, 3):
		return verifier.Malformed, verifier.CodeLevel
	case field(0x034, 0x038, 0):
		return verifier.Malformed, verifier.CodeAlgorithm
	case field(0x048, 0x04c, 0x1f):
		return verifier.Malformed, verifier.CodeSigner
	default:
		return verifier.Forged, verifier.CodeSignature
	}
}

// scalars are signatures that are none: every byte of R and S changed, and
// values at which a careless check of ECDSA fails.
func (f reports) scalars() family {
	for _, s := range []span{{0x2a0, 0x2d0}, {0x2e8, 0x318}} {
		for at := s.from; at < s.to; at++ {
			f.forge(fmt.Sprintf("byte 0x%03x", at), func(b []byte) { b[at] ^= 0x10 }, verifier.Forged, verifier.CodeSignature)
		}
	}
	curve := elliptic.P384().Params()
	read := func(at int) *big.Int {
		be := bytes.Clone(f.twin.data[at : at+48])
		slices.Reverse(be)
		return new(big.Int).SetBytes(be)
	}
	r, s := read(0x2a0), read(0x2e8)
	one := big.NewInt(1)
	values := map[string]*big.Int{
		"0": new(big.Int), "1": one, "n-1": new(big.Int).Sub(curve.N, one), "n": curve.N, "n+1": new(big.Int).Add(curve.N, one),
		"p": curve.P, "p-1": new(big.Int).Sub(curve.P, one), "2^384-1": new(big.Int).Sub(new(big.Int).Lsh(one, 384), one),
		"the other": nil,
	}
	for name, n := range values {
		rs, ss := n, n
		if n == nil {
			rs, ss = s, r
		}
		f.forge("r = "+name, func(b []byte) { putScalars(b, rs, s) }, verifier.Forged, verifier.CodeSignature)
		f.forge("s = "+name, func(b []byte) { putScalars(b, r, ss) }, verifier.Forged, verifier.CodeSignature)
		f.forge("both = "+name, func(b []byte) { putScalars(b, rs, ss) }, verifier.Forged, verifier.CodeSignature)
	}
	for name, at := range map[string]int{"r": 0x2a0, "s": 0x2e8} {
		f.forge(name+" big-endian", func(b []byte) { slices.Reverse(b[at : at+48]) }, verifier.Forged, verifier.CodeSignature)
		f.forge(name+" big-endian in 72 bytes", func(b []byte) { slices.Reverse(b[at : at+72]) }, verifier.Malformed, verifier.CodeReserved)
		f.forge(name+" + 2^384", func(b []byte) { b[at+48] = 1 }, verifier.Malformed, verifier.CodeReserved)
	}
	f.forge("r and n-r", func(b []byte) { putScalars(b, new(big.Int).Sub(curve.N, r), s) }, verifier.Forged, verifier.CodeSignature)
	f.add("another key's", f.sign(f.unsigned(), "other"), verifier.Forged, verifier.CodeSignature, true)
	f.add("another report's", append(f.report(f.machine, func(b []byte) { b[0x140]++ })[:0x2a0:0x2a0], f.twin.data[0x2a0:]...), verifier.Forged, verifier.CodeSignature, true)
	f.forge("none", func(b []byte) { clear(b[0x2a0:]) }, verifier.Forged, verifier.CodeSignature)
	return f.family("signature")
}

// sizes cuts reports off, and puts something behind them.
func (f reports) sizes() family {
	for n := range verifier.ReportSize {
		if n%37 == 0 || n == verifier.ReportSize-1 || n == 0x2a0 {
			f.add(fmt.Sprintf("%d bytes", n), f.twin.data[:n], verifier.Malformed, verifier.CodeSize, true)
		}
	}
	for n := 1; n < 24; n++ {
		f.add(fmt.Sprintf("%d bytes behind", n), append(bytes.Clone(f.twin.data), make([]byte, n)...), verifier.Malformed, verifier.CodeTable, true)
	}
	f.add("twice", append(bytes.Clone(f.twin.data), f.twin.data...), verifier.Malformed, verifier.CodeTable, true)
	f.add("too much", make([]byte, verifier.MaxInput+1), verifier.Malformed, verifier.CodeSize, true)
	f.add("a table too large", append(bytes.Clone(f.twin.data), make([]byte, 64<<10+1)...), verifier.Malformed, verifier.CodeTable, true)
	f.add("behind white space", append([]byte("\n"), f.twin.data...), verifier.Malformed, verifier.CodeVersion, false)
	return f.family("size")
}

// versions are those that there are not, under a signature that holds, and
// those of other layouts.
func (f reports) versions() family {
	for _, version := range slices.Concat(upTo(256), []uint32{256, 0x0200, 0x0500, 0x10005, 0x02000000, 0x05000000, 0x80000003, 0xffffffff}) {
		put := func(b []byte) { binary.LittleEndian.PutUint32(b, version) }
		code := verifier.CodeVersion
		if version&0xff == '{' { // which makes it text
			code = verifier.CodeEvidence
		}
		if version < verifier.MinVersion || version > verifier.MaxVersion {
			f.signed(fmt.Sprint("version ", version), put, verifier.Malformed, code)
		}
	}
	if f.version > 2 {
		f.forge("version 2 with a family", func(b []byte) { b[0] = 2 }, verifier.Malformed, verifier.CodeReserved)
	} else {
		f.add("version 3 without a family", f.report(f.machine, func(b []byte) { b[0] = 3 }), verifier.Forged, verifier.CodeProduct, false)
	}
	if f.version == 5 {
		f.signed("version 3 with mitigations", func(b []byte) { b[0] = 3 }, verifier.Malformed, verifier.CodeReserved)
	}
	return f.family("version")
}

func upTo(n uint32) []uint32 {
	var all []uint32
	for i := range n {
		all = append(all, i)
	}
	return all
}

// levels are VMPLs that were not demanded, and those that there are not.
func (f reports) levels() family {
	for _, vmpl := range slices.Concat(upTo(256)[1:], []uint32{256, 0x01000000, 0x80000000, 0xffffffff}) {
		v, code := verifier.Malformed, verifier.CodeLevel
		if vmpl <= 3 {
			v, code = verifier.Mismatch, verifier.CodeVMPL
		}
		f.signed(fmt.Sprint("VMPL ", vmpl), func(b []byte) { binary.LittleEndian.PutUint32(b[0x030:], vmpl) }, v, code)
	}
	return f.family("VMPL")
}

func (f reports) algorithms() family {
	for _, algo := range slices.Concat(upTo(256), []uint32{256, 0x10001, 0x01000000, 0xffffffff}) {
		if algo != 1 {
			f.signed(fmt.Sprint("algorithm ", algo), func(b []byte) { binary.LittleEndian.PutUint32(b[0x034:], algo) }, verifier.Malformed, verifier.CodeAlgorithm)
		}
	}
	return f.family("algorithm")
}

// signers are other kinds of keys than the certificate's, those that are
// reserved, and none; and the bits that are reserved beside them.
func (f reports) signers() family {
	put := func(info uint32) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint32(b[0x048:], info) }
	}
	for kind := range uint32(8) {
		if kind != uint32(f.key) {
			name := "signed by " + verifier.SigningKey(kind).String()
			f.add(name, f.report(f.machine, put(kind<<2|1)), verifier.Forged, verifier.CodeKey, kind > 1)
			f.forge(name+", changed", put(kind<<2|1), verifier.Forged, verifier.CodeKey)
		}
	}
	for bit := 5; bit < 32; bit++ {
		f.signed(fmt.Sprint("bit ", bit), put(uint32(f.key)<<2|1|1<<bit), verifier.Malformed, verifier.CodeSigner)
	}
	return f.family("signer")
}
