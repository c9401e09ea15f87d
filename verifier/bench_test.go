package verifier_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha512"
	"crypto/x509"
	"io"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	sevtest "github.com/google/go-sev-guest/testing"
	sevverify "github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"
	"github.com/google/logger"

	"github.com/kraudcloud/kattest/verifier"
)

// at is when the certificates of the Milans below are valid, and AMD's list for
// them is in date.
var at = time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)

const milanCRL = "crl_53a61dc059e5.crl"

// fleet are the genuine reports of different Milans, VCEK alone.
func fleet(b *testing.B) []genuine {
	b.Helper()
	var all []genuine
	seen := map[string]bool{}
	for _, g := range readCorpus(b) {
		if g.row["product"] == "Milan" && g.row["signing_key"] == "VCEK" && !seen[string(g.cert)] {
			seen[string(g.cert)] = true
			all = append(all, g)
		}
	}
	return all
}

// wholePolicy leaves nothing out.
func wholePolicy(b *testing.B, g genuine) verifier.Policy {
	in := parse(b, g.report)
	return verifier.Policy{
		Time:     at,
		CRLs:     []*x509.RevocationList{readCRL(b, milanCRL)},
		Products: map[verifier.Product]verifier.ProductPolicy{verifier.Milan: {Reported: verifier.TCB{SNP: 3}}},
		HostData: &in.Report.HostData, ReportData: &in.Report.ReportData,
		References:   []verifier.Reference{{Measurement: in.Report.Measurement}},
		WithoutDebug: true, WithoutCommitted: true, WithoutVMPL: true,
	}
}

// withTable appends a certificate table with the report's VCEK.
func withTable(g genuine) []byte {
	table := make([]byte, 48)
	copy(table, []byte{0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd})
	table[16] = 48
	table[20], table[21] = byte(len(g.cert)), byte(len(g.cert)>>8)
	return slices.Concat(g.report, table, g.cert)
}

// A report of a chip whose certificate is known, with every check of the policy,
// beside its limit: one P-384 signature.
func BenchmarkKnown(b *testing.B) {
	g := fleet(b)[0]
	data, p, v := withTable(g), wholePolicy(b, g), verifier.New(nil)
	key, digest, sig := p384(b, g)
	limit := func() {
		if !ecdsa.Verify(key, digest, sig[0], sig[1]) {
			b.Fatal("a signature does not hold")
		}
	}
	whole := func() {
		if r, err := v.Judge(b.Context(), "", data, p); err != nil {
			b.Fatal(r.Verdict, err)
		}
	}
	whole()
	b.Run("P-384 alone", func(b *testing.B) {
		for b.Loop() {
			limit()
		}
	})
	b.Run("kattest", func(b *testing.B) {
		for b.Loop() {
			whole()
		}
	})
	// Turn by turn: on a busy machine neighbours say more than two runs.
	b.Run("kattest over P-384", func(b *testing.B) {
		var alone, both time.Duration
		for b.Loop() {
			start := time.Now()
			limit()
			middle := time.Now()
			whole()
			alone, both = alone+middle.Sub(start), both+time.Since(middle)
		}
		b.ReportMetric(float64(both)/float64(alone), "×P-384")
	})
}

// The first report of each of a fleet's chips, to a verifier that has seen none,
// AMD's revocation list included; and a peer with the same roots and reports,
// that looks for neither TCB nor chip, without the list and with it.
func BenchmarkFirst(b *testing.B) {
	all := fleet(b)
	perReport := func(b *testing.B, judge func(g genuine)) {
		for b.Loop() {
			for _, g := range all {
				judge(g)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(all)), "ns/report")
	}
	b.Run("kattest", func(b *testing.B) {
		var data [][]byte
		var policies []verifier.Policy
		for _, g := range all {
			data, policies = append(data, withTable(g)), append(policies, wholePolicy(b, g))
		}
		for b.Loop() {
			v := verifier.New(nil)
			for i := range data {
				if r, err := v.Judge(b.Context(), "", data[i], policies[i]); err != nil {
					b.Fatal(r.Verdict, err)
				}
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(data)), "ns/report")
	})
	for _, lists := range []bool{false, true} {
		name := "go-sev-guest"
		if lists {
			name += " with the list"
		}
		b.Run(name, func(b *testing.B) { perReport(b, newPeer(b, lists)) })
	}
}

// p384 returns what the report's signature check comes to.
func p384(b *testing.B, g genuine) (*ecdsa.PublicKey, []byte, [2]*big.Int) {
	b.Helper()
	cert, err := x509.ParseCertificate(g.cert)
	if err != nil {
		b.Fatal(err)
	}
	var sig [2]*big.Int
	for i := range sig {
		le := bytes.Clone(g.report[0x2a0+72*i:][:48])
		slices.Reverse(le)
		sig[i] = new(big.Int).SetBytes(le)
	}
	digest := sha512.Sum384(g.report[:0x2a0])
	return cert.PublicKey.(*ecdsa.PublicKey), digest[:], sig
}

// newPeer returns go-sev-guest's whole verification, from the bytes on.
func newPeer(b *testing.B, lists bool) func(genuine) {
	b.Helper()
	logger.Init("", false, false, io.Discard)
	list := readCRL(b, milanCRL).Raw
	roots := trust.AMDRootCertsProduct("Milan")
	if err := roots.FromKDSCertBytes(trust.AskArkMilanVcekBytes); err != nil {
		b.Fatal(err)
	}
	return func(g genuine) {
		report, err := abi.ReportCertsToProto(withTable(g))
		if err != nil {
			b.Fatal(err)
		}
		// A call changes its options.
		err = sevverify.SnpAttestation(report, &sevverify.Options{
			DisableCertFetching: true, CheckRevocations: lists, Now: at,
			Getter:       sevtest.SimpleGetter(map[string][]byte{"https://kdsintf.amd.com/vcek/v1/Milan/crl": list}),
			TrustedRoots: map[string][]*trust.AMDRootCerts{"Milan": {roots}},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
