package verifier

import (
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/kraudcloud/kattest/measure/idblock"
)

// noIDBlock is what a report without an ID block has for a key.
const noIDBlock = "none"

// checkIDBlock checks by whom the guest's ID block was signed, and its labels.
// What the policy does not ask for is not checked: without an ID block a
// measurement says as much, and any host can sign one with keys of its own.
func (v *verification) checkIDBlock() {
	r, p := v.in.Report, v.policy
	if len(p.IDKeys) > 0 {
		v.checkKey(CodeIDKey, p.IDKeys, r.IDKeyDigest, "the guest was launched without an ID block", "another key signed the guest's ID block")
	}
	if len(p.AuthorKeys) > 0 {
		digest, reason := r.AuthorKeyDigest, "no author's key signed the guest's ID key"
		if !r.SignerInfo.AuthorKey() && digest != [48]byte{} {
			digest, reason = [48]byte{}, "AUTHOR_KEY_EN is clear: the processor did not check an author's key"
		}
		v.checkKey(CodeAuthorKey, p.AuthorKeys, digest, reason, "another author's key signed the guest's ID key")
	}
	if p.FamilyID != nil {
		v.checkLabel(Check{
			Code: CodeFamilyID, Expected: hex.EncodeToString(p.FamilyID[:]), Found: hex.EncodeToString(r.FamilyID[:]),
			Reason: "the ID block is of another family",
		})
	}
	if p.ImageID != nil {
		v.checkLabel(Check{
			Code: CodeImageID, Expected: hex.EncodeToString(p.ImageID[:]), Found: hex.EncodeToString(r.ImageID[:]),
			Reason: "the ID block is of another image",
		})
	}
	if p.MinimumGuestSVN > 0 {
		check := Check{
			Code: CodeGuestSVN, Expected: fmt.Sprintf("at least %d", p.MinimumGuestSVN), Found: fmt.Sprint(r.GuestSVN),
			Reason: "an older version of the guest than is accepted",
		}
		if r.GuestSVN >= p.MinimumGuestSVN {
			check.Outcome = Pass
		}
		v.checkLabel(check)
	}
}

// checkKey looks a key's digest up in those that are trusted. A digest of zero
// is no key's, and never trusted.
func (v *verification) checkKey(code Code, trusted []idblock.KeyDigest, found idblock.KeyDigest, missing, other string) {
	check := Check{Code: code, Outcome: Fail, Expected: trusted[0].String(), Found: found.String(), Reason: other}
	if len(trusted) > 1 {
		check.Expected = fmt.Sprintf("one of %d digests", len(trusted))
	}
	switch {
	case found == idblock.KeyDigest{}:
		check.Found, check.Reason = noIDBlock, missing
	case slices.Contains(trusted, found):
		check.Outcome, check.Expected, check.Reason = Pass, found.String(), ""
	}
	v.add(check)
}

// checkLabel adds the check of a label, which says nothing unless it is known
// who wrote it.
func (v *verification) checkLabel(c Check) {
	switch {
	case len(v.policy.IDKeys) == 0 && len(v.policy.AuthorKeys) == 0:
		c.Outcome, c.Reason = Fail, "nothing says who may write it: any host can sign an ID block"
		c.Hint = "--id-key PUB or --author-key PUB"
	case c.Outcome == Pass || c.Expected == c.Found:
		c.Outcome, c.Reason = Pass, ""
	default:
		c.Outcome = Fail
	}
	v.add(c)
}
