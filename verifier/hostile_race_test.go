//go:build race

package verifier_test

// The race detector makes everything many times slower, and is no user's.
const maxTime = 20 * maxHostileTime
