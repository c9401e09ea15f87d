package kattest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/wholefile"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/idblock"
	"github.com/kraudcloud/kattest/verifier"
)

// idBlockMediaType names this version of idblock's JSON.
const idBlockMediaType = "application/vnd.kattest.idblock.v1+json"

// idBlockAnswer is idblock's answer; docs/spec/idblock.md has its JSON.
type idBlockAnswer struct {
	MediaType       string             `json:"mediaType"`
	Measurement     measure.Digest     `json:"measurement"`
	FamilyID        string             `json:"familyId"`
	ImageID         string             `json:"imageId"`
	GuestSVN        uint32             `json:"guestSvn"`
	Policy          string             `json:"policy"` // hexadecimal: JSON's numbers have 53 bits
	IDKeyDigest     idblock.KeyDigest  `json:"idKeyDigest"`
	AuthorKeyDigest *idblock.KeyDigest `json:"authorKeyDigest,omitempty"`
	IDBlock         idblock.Block      `json:"idBlock"`
	IDAuth          idblock.Auth       `json:"idAuth"`
	QEMU            string             `json:"qemu"`
}

// write prints every field, and what QEMU's object sev-snp-guest takes: where
// there are files, as text for a shell that reads them, as it is long.
func (f *idBlockFlags) write(w io.Writer, s idblock.Signed) error {
	b, a := s.Block, s.Auth
	qemu := fmt.Sprintf("policy=%#x,%s", b.Policy, s.QEMU())
	if f.output == "json" {
		answer := idBlockAnswer{
			MediaType: idBlockMediaType, Measurement: b.Measurement,
			FamilyID: hex.EncodeToString(b.FamilyID[:]), ImageID: hex.EncodeToString(b.ImageID[:]),
			GuestSVN: b.GuestSVN, Policy: fmt.Sprintf("%#x", b.Policy),
			IDKeyDigest: a.IDKey.Digest(), IDBlock: b, IDAuth: a, QEMU: qemu,
		}
		if a.HasAuthor() {
			answer.AuthorKeyDigest = new(a.AuthorKey.Digest())
		}
		return writeJSON(w, answer)
	}
	author := "none"
	if a.HasAuthor() {
		author = a.AuthorKey.Digest().String()
	}
	var text bytes.Buffer
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range []field{
		{"LD", b.Measurement.String()},
		{"FAMILY_ID", hex.EncodeToString(b.FamilyID[:])},
		{"IMAGE_ID", hex.EncodeToString(b.ImageID[:])},
		{"VERSION", "1"},
		{"GUEST_SVN", fmt.Sprint(b.GuestSVN)},
		{"POLICY", verifier.GuestPolicy(b.Policy).String()},
		{"ID_KEY_DIGEST", a.IDKey.Digest().String()},
		{"AUTHOR_KEY_DIGEST", author},
	} {
		fmt.Fprintf(table, "%s\t%s\n", row.Name, row.Value)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if f.outBlock != "" {
		qemu = fmt.Sprintf("policy=%#x,id-block=$(cat %s),id-auth=$(cat %s)", b.Policy, f.outBlock, f.outAuth)
		if a.HasAuthor() {
			qemu += ",author-key-enabled=on"
		}
	}
	if !f.check {
		fmt.Fprintf(&text, "\nfor QEMU's object sev-snp-guest:\n%s\n", qemu)
	}
	_, err := w.Write(text.Bytes())
	return err
}

// writeIDBlockFiles writes both files, or neither where the first fails.
func writeIDBlockFiles(s idblock.Signed, blockFile, authFile string) error {
	block, err := s.Block.MarshalText()
	if err != nil {
		return err
	}
	auth, err := s.Auth.MarshalText()
	if err != nil {
		return err
	}
	if err := wholefile.Write(blockFile, append(block, '\n'), 0o644); err != nil {
		return err
	}
	return wholefile.Write(authFile, append(auth, '\n'), 0o644)
}

// runCheck prints the files' fields, and then everything that is wrong.
func (f *idBlockFlags) runCheck(cmd *cobra.Command) error {
	want, err := f.block()
	if err != nil {
		return cli.Usage(err, "")
	}
	if f.names() {
		if want.Measurement, err = f.digest(cmd); err != nil {
			return err
		}
	}
	block, errB := cli.ReadFile(f.idBlock, idblock.MaxFile)
	auth, errA := cli.ReadFile(f.idAuth, idblock.MaxFile)
	if err := errors.Join(errB, errA); err != nil {
		return cli.Usage(err, "")
	}
	s, err := idblock.Parse(block, auth)
	if err != nil {
		return cli.Usage(fmt.Errorf("%s, %s: %w", f.idBlock, f.idAuth, err), "")
	}
	differs, err := f.compare(s, want)
	if err != nil {
		return err
	}
	if err := f.write(cmd.OutOrStdout(), s); err != nil {
		return err
	}
	if err := s.Verify(); err != nil {
		return &cli.Error{Code: cli.ExitSignature, Err: errors.Join(err, differs), Hint: "the files were changed, or do not belong together"}
	}
	if differs != nil {
		return &cli.Error{Code: cli.ExitMismatch, Err: differs}
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "the signatures hold, and all that was given is so")
	return nil
}

// compare holds an ID block against what the flags say; differs is all in which
// it is another one.
func (f *idBlockFlags) compare(s idblock.Signed, want idblock.Block) (differs, err error) {
	var errs []error
	differ := func(name string, got, want any) {
		if got != want {
			errs = append(errs, fmt.Errorf("%s: %v, want %v", name, got, want))
		}
	}
	b := s.Block
	if f.names() {
		differ("LD", b.Measurement, want.Measurement)
	}
	if f.given("policy") {
		differ("POLICY", verifier.GuestPolicy(b.Policy), verifier.GuestPolicy(want.Policy))
	}
	if err := f.checkPolicy(b.Policy); err != nil {
		errs = append(errs, err)
	}
	if f.given("family-id") {
		differ("FAMILY_ID", hex.EncodeToString(b.FamilyID[:]), hex.EncodeToString(want.FamilyID[:]))
	}
	if f.given("image-id") {
		differ("IMAGE_ID", hex.EncodeToString(b.ImageID[:]), hex.EncodeToString(want.ImageID[:]))
	}
	if f.given("guest-svn") {
		differ("GUEST_SVN", b.GuestSVN, want.GuestSVN)
	}
	for _, k := range []struct {
		flag, file, field string
		key               idblock.PublicKey
	}{
		{"--id-key", f.idKey, "ID_KEY_DIGEST", s.Auth.IDKey},
		{"--author-key", f.authorKey, "AUTHOR_KEY_DIGEST", s.Auth.AuthorKey},
	} {
		if k.file == "" {
			continue
		}
		key, err := readPublicKey(k.flag, k.file)
		if err != nil {
			return nil, cli.Usage(err, "with --check it is a public key: openssl pkey -in KEY -pubout")
		}
		if k.key == (idblock.PublicKey{}) {
			errs = append(errs, fmt.Errorf("%s: there is no author's key, want %v", k.field, key.Digest()))
			continue
		}
		differ(k.field, k.key.Digest(), key.Digest())
	}
	return errors.Join(errs...), nil
}
