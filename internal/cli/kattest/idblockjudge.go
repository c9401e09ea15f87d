package kattest

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/measure/idblock"
	"github.com/kraudcloud/kattest/verifier"
)

// idFlags say what is demanded of a guest's ID block.
type idFlags struct {
	idKeys, idKeyDigests         []string
	authorKeys, authorKeyDigests []string
	familyID, imageID            string
	minGuestSVN                  uint32
}

var (
	idKeyFlagNames   = []string{"id-key", "id-key-digest", "author-key", "author-key-digest"}
	idLabelFlagNames = []string{"family-id", "image-id", "min-guest-svn"}
)

func (f *idFlags) register(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.idKeys, "id-key", nil, "public key, PEM, that must have signed the guest's ID block; may be given more than once")
	flags.StringArrayVar(&f.idKeyDigests, "id-key-digest", nil, "the same by its digest, 96 hexadecimal digits")
	flags.StringArrayVar(&f.authorKeys, "author-key", nil, "public key, PEM, that must have signed the ID key; may be given more than once")
	flags.StringArrayVar(&f.authorKeyDigests, "author-key-digest", nil, "the same by its digest, 96 hexadecimal digits")
	flags.StringVar(&f.familyID, "family-id", "", "FAMILY_ID that the ID block must have, 32 hexadecimal digits")
	flags.StringVar(&f.imageID, "image-id", "", "IMAGE_ID that the ID block must have, 32 hexadecimal digits")
	flags.Uint32Var(&f.minGuestSVN, "min-guest-svn", 0, "least GUEST_SVN that the ID block must have")
}

// check refuses a label without a key, here or in the policy: any host can sign an
// ID block.
func (f *idFlags) check(flags *pflag.FlagSet, authenticityOnly bool, base verifier.Policy) error {
	key := firstGiven(flags, idKeyFlagNames)
	label := firstGiven(flags, idLabelFlagNames)
	switch {
	case authenticityOnly && key+label != "":
		return fmt.Errorf("--authenticity-only and --%s contradict each other", cmp.Or(key, label))
	case flags.Changed("family-id") && f.familyID == "" || flags.Changed("image-id") && f.imageID == "":
		return errors.New("--family-id, --image-id: want 32 hexadecimal digits")
	case label != "" && key == "" && len(base.IDKeys)+len(base.AuthorKeys) == 0:
		return fmt.Errorf("--%s needs --id-key or --author-key: any host can sign an ID block", label)
	}
	return nil
}

func firstGiven(flags *pflag.FlagSet, names []string) string {
	for _, name := range names {
		if flags.Changed(name) {
			return name
		}
	}
	return ""
}

func (f *idFlags) read(p *verifier.Policy) error {
	ids, errID := readKeyDigests("--id-key", f.idKeys, f.idKeyDigests)
	authors, errAuthor := readKeyDigests("--author-key", f.authorKeys, f.authorKeyDigests)
	if err := errors.Join(errID, errAuthor); err != nil {
		return err
	}
	if len(ids) > 0 {
		p.IDKeys = ids
	}
	if len(authors) > 0 {
		p.AuthorKeys = authors
	}
	if f.familyID != "" {
		p.FamilyID = new([16]byte)
		if err := readHex(p.FamilyID[:], "--family-id", f.familyID); err != nil {
			return err
		}
	}
	if f.imageID != "" {
		p.ImageID = new([16]byte)
		if err := readHex(p.ImageID[:], "--image-id", f.imageID); err != nil {
			return err
		}
	}
	if f.minGuestSVN > 0 {
		p.MinimumGuestSVN = f.minGuestSVN
	}
	return nil
}

func readKeyDigests(flag string, files, digests []string) ([]idblock.KeyDigest, error) {
	var all []idblock.KeyDigest
	for _, file := range files {
		key, err := readPublicKey(flag, file)
		if err != nil {
			return nil, err
		}
		all = append(all, key.Digest())
	}
	for _, text := range digests {
		d, err := idblock.ParseKeyDigest(text)
		if err != nil {
			return nil, fmt.Errorf("%s-digest: %w", flag, err)
		}
		all = append(all, d)
	}
	return all, nil
}
