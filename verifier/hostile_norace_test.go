//go:build !race

package verifier_test

const maxTime = maxHostileTime
