package kattest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/wholefile"
	"github.com/kraudcloud/kattest/verifier"
	"github.com/kraudcloud/kattest/verifier/collateral"
)

func newCollateral() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "collateral",
		Short: "Fetch and show what reports are judged with: certificates and revocation lists",
		Args:  cli.Args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCollateralFetch(), newCollateralShow())
	return cmd
}

// wanted is what to fetch.
type wanted struct {
	kds       collateralFlags
	reports   []string
	products  []string
	chip, tcb string
	chains    bool
}

func newCollateralFetch() *cobra.Command {
	var w wanted
	cmd := &cobra.Command{
		Use:   "fetch BUNDLE",
		Short: "Fetch certificates and revocation lists into an offline bundle",
		Long: `Fetch from AMD's KDS into BUNDLE what 'kattest verify --offline --collateral BUNDLE'
needs: the revocation list of each product, and the VCEK's certificate of each
report's chip at its reported TCB. A BUNDLE that is there is added to: lists are
fetched anew, certificates that it has are not.

AMD's chains are compiled in and not fetched, unless --chains says so. The bundle
is written when all was had, or not at all.`,
		Example: `  kattest collateral fetch bundle.json --report evidence.json --report report.bin
  kattest collateral fetch bundle.json --product Genoa --chip HEX --tcb bootloader=10,tee=0,snp=23,microcode=84`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := w.kds.check(); err != nil {
				return cli.Usage(err, "")
			}
			b, err := collateral.Open(args[0])
			if errors.Is(err, fs.ErrNotExist) {
				b, err = &collateral.Bundle{}, nil
			}
			if err != nil {
				return cli.Usage(err, "")
			}
			if info, err := os.Stat(args[0]); err == nil && info.IsDir() {
				return cli.Usage(fmt.Errorf("%s: is a folder", args[0]), "")
			}
			if err := w.fetch(cmd.Context(), b, cmd.ErrOrStderr()); err != nil {
				return err
			}
			data, err := b.Marshal()
			if err != nil {
				return err
			}
			if err := wholefile.Write(args[0], data, 0o644); err != nil {
				return err
			}
			return writeItems(cmd.OutOrStdout(), b)
		},
	}
	w.kds.registerKDS(cmd.Flags())
	cmd.Flags().StringArrayVar(&w.reports, "report", nil, "report or evidence whose VCEK to fetch; may be given more than once")
	cmd.Flags().StringArrayVar(&w.products, "product", nil, "product whose revocation list to fetch: Milan, Genoa or Turin; may be given more than once (default the reports', or all)")
	cmd.Flags().StringVar(&w.chip, "chip", "", "CHIP_ID whose VCEK to fetch, hexadecimal, with --product and --tcb")
	cmd.Flags().StringVar(&w.tcb, "tcb", "", "TCB of that VCEK: bootloader=N,tee=N,snp=N,microcode=N and on Turin fmc=N")
	cmd.Flags().BoolVar(&w.chains, "chains", false, "fetch the products' chains too")
	return cmd
}

func newCollateralShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show BUNDLE",
		Short: "Print what a bundle holds, and until when it is good",
		Args:  cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := collateral.Open(args[0])
			if err != nil {
				return cli.Usage(err, "")
			}
			return writeItems(cmd.OutOrStdout(), b)
		},
	}
}

func writeItems(w io.Writer, b *collateral.Bundle) error {
	var buf bytes.Buffer
	table := tabwriter.NewWriter(&buf, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KIND\tPRODUCT\tUNTIL\tWHAT")
	for _, item := range b.Items() {
		fmt.Fprintf(table, "%s\t%v\t%s\t%s\n", item.Kind, item.Product, item.Until.UTC().Format("2006-01-02"), item.What)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := w.Write(buf.Bytes())
	return err
}

// vcek is one to fetch, of one of several products where a report does not say.
type vcek struct {
	products []verifier.Product
	chipID   [64]byte
	tcb      func(verifier.Product) (verifier.TCB, error)
	name     string // for people
}

// fetch adds to b all that is wanted and not there.
func (w *wanted) fetch(ctx context.Context, b *collateral.Bundle, stderr io.Writer) error {
	products, vceks, err := w.parse()
	if err != nil {
		return cli.Usage(err, "")
	}
	kds := collateral.NewKDS(w.kds.kds)
	var errs []error
	for _, v := range vceks {
		fmt.Fprintf(stderr, "fetching the VCEK of %s\n", v.name)
		p, err := v.fetch(ctx, kds, b)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", v.name, err))
			continue
		}
		products[p] = true
	}
	if len(products) == 0 && len(vceks) == 0 {
		for _, p := range verifier.Products() {
			products[p] = true
		}
	}
	for _, p := range verifier.Products() {
		if products[p] {
			fmt.Fprintf(stderr, "fetching the revocation list of %v\n", p)
			errs = append(errs, w.fetchProduct(ctx, kds, b, p))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return &cli.Error{Code: cli.ExitUnavailable, Err: err, Hint: "nothing was written; the service may be busy: try again later"}
	}
	return nil
}

func (w *wanted) fetchProduct(ctx context.Context, kds *collateral.KDS, b *collateral.Bundle, p verifier.Product) error {
	list, err := kds.CRL(ctx, p, verifier.VCEK)
	if err == nil {
		err = b.AddCRL(list)
	}
	if err != nil || !w.chains {
		return err
	}
	for _, key := range []verifier.SigningKey{verifier.VCEK, verifier.VLEK} {
		chain, err := kds.Chain(ctx, p, key)
		if err == nil {
			err = b.AddChain(chain)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parse reads the flags and the reports.
func (w *wanted) parse() (map[verifier.Product]bool, []vcek, error) {
	products := map[verifier.Product]bool{}
	var named []verifier.Product
	for _, name := range w.products {
		p, err := verifier.ParseProduct(name)
		if err != nil {
			return nil, nil, fmt.Errorf("--product: %w", err)
		}
		products[p], named = true, append(named, p)
	}
	var vceks []vcek
	for _, name := range w.reports {
		data, err := cli.ReadFile(name, verifier.MaxInput)
		if err != nil {
			return nil, nil, err
		}
		in, err := verifier.ParseInput(data)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		v, err := vcekOf(in.Report, name)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		vceks = append(vceks, v)
	}
	if w.chip == "" && w.tcb == "" {
		return products, vceks, nil
	}
	v, err := w.parseChip(named)
	return products, append(vceks, v), err
}

func (w *wanted) parseChip(named []verifier.Product) (vcek, error) {
	tcb, err := verifier.ParseTCB(w.tcb)
	if err != nil {
		return vcek{}, fmt.Errorf("--tcb: %w", err)
	}
	id, err := hex.DecodeString(w.chip)
	if err != nil || len(id) != 8 && len(id) != 64 {
		return vcek{}, errors.New("--chip: want 128 hexadecimal digits, of a Turin 16 or 128")
	}
	if len(named) != 1 {
		return vcek{}, errors.New("--chip: want one --product")
	}
	v := vcek{products: named, name: fmt.Sprintf("chip %s", w.chip), tcb: func(verifier.Product) (verifier.TCB, error) { return tcb, nil }}
	copy(v.chipID[:], id)
	return v, nil
}

// vcekOf is the VCEK that must have signed a report. A report of version 2 does not
// name its product: those that have such reports come into question.
func vcekOf(r verifier.Report, name string) (vcek, error) {
	switch {
	case r.SignerInfo.SigningKey() != verifier.VCEK:
		return vcek{}, fmt.Errorf("signed by a %v, which AMD's KDS does not hand out", r.SignerInfo.SigningKey())
	case r.ChipID == [64]byte{}:
		return vcek{}, errors.New("its chip's id is masked")
	}
	v := vcek{products: []verifier.Product{verifier.Milan, verifier.Genoa}, chipID: r.ChipID, tcb: r.ReportedTCB.Decode, name: name}
	if r.Version >= 3 {
		p, err := r.Product()
		if err != nil {
			return vcek{}, err
		}
		v.products = []verifier.Product{p}
	}
	return v, nil
}

// fetch asks for the certificate unless b has it, and returns its product.
func (v vcek) fetch(ctx context.Context, kds *collateral.KDS, b *collateral.Bundle) (verifier.Product, error) {
	ask := func(source verifier.Source) (verifier.Product, error) {
		var errs []error
		for _, p := range v.products {
			tcb, err := v.tcb(p)
			if err != nil {
				return p, err
			}
			der, err := source.VCEK(ctx, p, v.chipID[:p.HWIDSize()], tcb)
			if err == nil {
				return p, b.AddVCEK(der)
			}
			errs = append(errs, err)
		}
		return verifier.UnknownProduct, errors.Join(errs...)
	}
	if p, err := ask(b); err == nil {
		return p, nil
	}
	return ask(kds)
}
