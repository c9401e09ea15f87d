package store_test

import (
	"crypto/elliptic"
	"testing"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/kraudcloud/kattest/measure/release/tlog"
	"github.com/kraudcloud/kattest/measure/release/tlog/store"
)

// BenchmarkAdd is a thousand entries, with their proofs and to the disk, at one call.
func BenchmarkAdd(b *testing.B) {
	by := ecKey(b, elliptic.P256())
	var bundles, leaves [][]byte
	for n := range 1000 {
		bundles = append(bundles, sign(b, by, n))
		leaves = append(leaves, leaf(b, bundles[n], by))
	}
	var proof int
	for b.Loop() {
		b.StopTimer()
		dir, key := newLog(b)
		l, err := store.Open(b.Context(), dir, key)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		tree, indexes, err := l.Add(b.Context(), leaves)
		if err != nil {
			b.Fatal(err)
		}
		proof = 0
		for i, data := range bundles {
			out, err := tree.Attach(data, leaves[i], indexes[i])
			if err != nil {
				b.Fatal(err)
			}
			proof += len(out) - len(data)
		}
		l.Close()
	}
	b.ReportMetric(float64(proof)/float64(len(bundles)), "proof-bytes")
}

// BenchmarkCheck is one proof of a log of a thousand, beside sigstore-go's whole
// verification of the same bundle and trusted root.
func BenchmarkCheck(b *testing.B) {
	dir, key := newLog(b)
	by := ecKey(b, elliptic.P256())
	var bundles [][]byte
	for n := range 1000 {
		bundles = append(bundles, sign(b, by, n))
	}
	logged := add(b, dir, key, by, bundles...)[500]
	text, logs := trustedRoot(b, dir)
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			if _, err := tlog.Check(logged, by.Public(), logs); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sigstore-go", func(b *testing.B) {
		verifier, err := verify.NewVerifier(material(b, text, by.Public()), verify.WithTransparencyLog(1), verify.WithNoObserverTimestamps())
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			var parsed bundle.Bundle
			if err := parsed.UnmarshalJSON(logged); err != nil {
				b.Fatal(err)
			}
			if _, err := verifier.Verify(&parsed, verify.NewPolicy(verify.WithoutArtifactUnsafe(), verify.WithKey())); err != nil {
				b.Fatal(err)
			}
		}
	})
}
