package kattest

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/secrets"
	"github.com/kraudcloud/kattest/internal/channel"
	"github.com/kraudcloud/kattest/internal/cli"
)

func newUnlock() *cobra.Command {
	var f guestFlags
	var sign string
	var files, format []string
	cmd := &cobra.Command{
		Use:   "unlock ADDR --secret NAME=FILE... --sign KEY --spec SPEC",
		Short: "Hand a guest its secrets, once it was judged",
		Long: `Challenge the guest at ADDR as attest does, and once all that is demanded holds, hand it
the secrets that its launch spec expects: all of them, and no other. They are sealed to
a key that this boot of the guest made and its evidence binds, and signed by an owner's
key that the spec names. The guest starts its workload when it has them; they are in
its memory alone.

A secret is the whole of a file, 1 byte to 64 KiB, with the line feed at its end if it
has one; '-' is standard input. --format NAME says of a volume's key that the volume is
to be made: once, on a disk that holds nothing yet. Without it a blank disk is refused.

The owner's key is ECDSA's (P-256, P-384) or Ed25519's: a PEM file, the password of an
encrypted one in COSIGN_PASSWORD, or NAME://KEY of sigstore's plugin 'sigstore-kms-NAME'
in PATH. The verdict goes to standard output, and a last line that says what was taken.`,
		Example: `  openssl genpkey -algorithm ed25519 -out owner.key
  kattest unlock 127.0.0.1:4711 --secret root-password=password.txt --sign owner.key \
      --spec spec.json --release release.json --key release.pub`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.checkTrusting(cmd, args[0]); err != nil {
				return err
			}
			if f.judge.spec == "" || sign == "" {
				return cli.Usage(errors.New("--spec and --sign are both needed"), "see 'kattest unlock --help'")
			}
			spec, hostData, err := readSpecFile(f.judge.spec)
			if err != nil {
				return cli.Usage(err, "")
			}
			all, err := readSecrets(cmd, spec, files, format)
			if err != nil {
				return err
			}
			owner, err := openOwner(cmd.Context(), spec, sign)
			if err != nil {
				return err
			}
			p, err := f.judge.policy(cmd)
			if err != nil {
				return err
			}
			guest, err := f.attest(cmd, args[0], p)
			if err != nil {
				return err
			}
			defer guest.conn.Close()
			return f.unlock(cmd, guest, hostData, all, owner)
		},
	}
	f.register(cmd)
	cmd.Flags().StringArrayVar(&files, "secret", nil, "NAME=FILE: a secret; may be given more than once")
	cmd.Flags().StringArrayVar(&format, "format", nil, "NAME: make the volume anew whose key this secret is; may be given more than once")
	cmd.Flags().StringVar(&sign, "sign", "", "owner's private key: PEM file, or NAME://KEY of a KMS")
	return cmd
}

// readSecrets reads the files, and refuses what the spec does not expect before
// anyone is asked.
func readSecrets(cmd *cobra.Command, spec pod.Spec, files, format []string) ([]secrets.Secret, error) {
	var all []secrets.Secret
	made := map[string]bool{}
	for _, name := range format {
		made[name] = true
	}
	for _, text := range files {
		name, file, ok := strings.Cut(text, "=")
		if !ok || file == "" {
			return nil, cli.Usage(fmt.Errorf("--secret: %q is not NAME=FILE", name), "")
		}
		var value []byte
		var err error
		if file == "-" {
			value, err = cli.ReadAll("standard input", cmd.InOrStdin(), pod.MaxSecret)
		} else {
			value, err = cli.ReadFile(file, pod.MaxSecret)
		}
		if err != nil {
			return nil, cli.Usage(fmt.Errorf("--secret %s: %w", name, err), "")
		}
		all = append(all, secrets.Secret{Name: name, Value: value, Format: made[name]})
		delete(made, name)
	}
	for name := range made {
		return nil, cli.Usage(fmt.Errorf("--format %s: no --secret of that name", name), "")
	}
	if err := secrets.Match(spec, all); err != nil {
		return nil, cli.Usage(err, "docs/spec/launch-spec.md says what 'secrets' of a spec means")
	}
	return all, nil
}

// openOwner opens the owner's key, which the spec must name.
func openOwner(ctx context.Context, spec pod.Spec, ref string) (crypto.Signer, error) {
	owner, err := openReleaseSigner(ctx, ref)
	if err != nil {
		return nil, err
	}
	if err := secrets.CheckOwner(spec, owner.Public()); err != nil {
		return nil, cli.Usage(fmt.Errorf("--sign %s: %w", ref, err), "'cradle-snp summon --owner PUB' names owners")
	}
	return owner, nil
}

// sealingKey finds the key of this boot in evidence that was judged.
func sealingKey(e evidence.Evidence) ([]byte, error) {
	for _, event := range e.Events {
		if event.Name == secrets.KeyEvent {
			return base64.StdEncoding.DecodeString(event.Value)
		}
	}
	return nil, errors.New("the guest asks for no secrets")
}

func (f *guestFlags) unlock(cmd *cobra.Command, guest *attested, hostData pod.Hash, all []secrets.Secret, owner crypto.Signer) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	key, err := sealingKey(guest.evidence)
	if err != nil {
		return &cli.Error{Code: cli.ExitUnavailable, Err: err}
	}
	message, err := secrets.Seal(key, hostData, all, owner)
	if err != nil {
		return err
	}
	if _, err := guest.conn.Post(ctx, secrets.Path, secrets.MediaType, message, 1<<10); err != nil {
		refused, ok := errors.AsType[*channel.StatusError](err)
		if !ok {
			return &cli.Error{Code: cli.ExitUnavailable, Err: fmt.Errorf("handing over the secrets: %w", err), Hint: "whether the guest has them, its evidence says: 'kattest attest'"}
		}
		return &cli.Error{Code: cli.ExitMismatch, Err: fmt.Errorf("the guest refuses the secrets: %w", refused)}
	}
	var names bytes.Buffer
	for _, s := range all {
		fmt.Fprintf(&names, " %s", s.Name)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "taken:%s\n", &names)
	return err
}
