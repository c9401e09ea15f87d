package cradle

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure/idblock"
)

// idFlags name the files of an ID block.
type idFlags struct{ block, auth string }

func (f *idFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.block, "id-block", "", "ID block, as 'kattest idblock' writes it: the firmware refuses another launch; needs --id-auth")
	flags.StringVar(&f.auth, "id-auth", "", "the ID block's keys and signatures")
}

// read returns the ID block that the flags name, nil where they name none.
func (f *idFlags) read() (*idblock.Signed, error) {
	if f.block == "" && f.auth == "" {
		return nil, nil
	}
	if f.block == "" || f.auth == "" {
		return nil, cli.Usage(errors.New("--id-block and --id-auth go together"), "")
	}
	block, errB := cli.ReadFile(f.block, idblock.MaxFile)
	auth, errA := cli.ReadFile(f.auth, idblock.MaxFile)
	if err := errors.Join(errB, errA); err != nil {
		return nil, cli.Usage(err, "")
	}
	s, err := idblock.Open(block, auth)
	if err != nil {
		return nil, idBlockError(fmt.Errorf("%s, %s: %w", f.block, f.auth, err))
	}
	return &s, nil
}

// apply puts the ID block that the flags name in place of the folder's.
func (f *idFlags) apply(v *vm.VM) error {
	s, err := f.read()
	if s != nil {
		v.Config.IDBlock = s
	}
	return err
}

// idBlockError gives an error of an ID block its exit code. Other errors stay
// what they are for a user: wrong input.
func idBlockError(err error) error {
	switch {
	case errors.Is(err, idblock.ErrSignature):
		return &cli.Error{Code: cli.ExitSignature, Err: err, Hint: "the files were changed or do not belong together: 'kattest idblock --check' tells"}
	case errors.Is(err, idblock.ErrMeasurement), errors.Is(err, idblock.ErrPolicy):
		return &cli.Error{Code: cli.ExitMismatch, Err: err, Hint: "an ID block is for one firmware, kernel, initrd, command line, number of vCPUs, CPU model and policy: 'kattest idblock' makes one"}
	}
	return cli.Usage(err, "")
}

// showIDBlock says what the guest's reports will hold.
func showIDBlock(w io.Writer, s *idblock.Signed) {
	if s == nil {
		return
	}
	fmt.Fprintf(w, "ID_KEY_DIGEST: %v\n", s.Auth.IDKey.Digest())
	if s.Auth.HasAuthor() {
		fmt.Fprintf(w, "AUTHOR_KEY_DIGEST: %v\n", s.Auth.AuthorKey.Digest())
	}
}
