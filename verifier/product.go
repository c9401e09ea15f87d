package verifier

import (
	"fmt"
	"strings"
)

// Product is a line of processors that shares roots and a layout of TCBs.
type Product int

// The products. The zero value is an unknown one.
const (
	UnknownProduct Product = iota
	Milan
	Genoa // and Bergamo, Siena
	Turin
)

var products = []Product{Milan, Genoa, Turin}

// Products returns the known products.
func Products() []Product { return append([]Product(nil), products...) }

func (p Product) String() string {
	switch p {
	case Milan:
		return "Milan"
	case Genoa:
		return "Genoa"
	case Turin:
		return "Turin"
	default:
		return "unknown"
	}
}

// HWIDSize is the size of the HWID in a VCEK's certificate, in bytes: what of
// CHIP_ID is not zero.
func (p Product) HWIDSize() int {
	if p == Turin {
		return 8
	}
	return 64
}

// MarshalText returns the product's name.
func (p Product) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a product's name, without a stepping, or unknown.
func (p *Product) UnmarshalText(text []byte) error {
	for _, known := range append([]Product{UnknownProduct}, products...) {
		if known.String() == string(text) {
			*p = known
			return nil
		}
	}
	return fmt.Errorf("unknown product %.40q", text)
}

// ParseProduct reads a product's name, such as Milan, with or without a
// stepping behind a dash (Milan-B0), as certificates give it.
func ParseProduct(name string) (Product, error) {
	line, _, _ := strings.Cut(name, "-")
	for _, p := range products {
		if p.String() == line {
			return p, nil
		}
	}
	return UnknownProduct, fmt.Errorf("unknown product %.40q", name)
}

// productOf returns the product of a processor's family and model.
// Source: AMD 57230 rev 1.00, and the models of genuine reports.
func productOf(family, model byte) (Product, error) {
	switch {
	case family == 0x19 && model <= 0x0f:
		return Milan, nil
	case family == 0x19 && (model >= 0x10 && model <= 0x1f || model >= 0xa0 && model <= 0xaf):
		return Genoa, nil
	case family == 0x1a && model <= 0x11:
		return Turin, nil
	}
	return UnknownProduct, fmt.Errorf("family 0x%x, model 0x%x is no known product", family, model)
}
