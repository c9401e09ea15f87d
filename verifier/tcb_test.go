package verifier_test

import (
	"testing"

	"github.com/kraudcloud/kattest/verifier"
)

func TestTCBEncode(t *testing.T) {
	for _, p := range verifier.Products() {
		tcb := verifier.TCB{Bootloader: 1, TEE: 2, SNP: 3, Microcode: 4}
		if p == verifier.Turin {
			tcb.FMC = 5
		}
		version, err := tcb.Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := version.Decode(p); err != nil || again != tcb {
			t.Errorf("%v: %x reads as %v, %v; want %v", p, version, again, err, tcb)
		}
	}
	if version, err := (verifier.TCB{FMC: 1}).Encode(verifier.Milan); err == nil || version != (verifier.TCBVersion{}) {
		t.Errorf("an FMC on Milan: %x, %v", version, err)
	}
	if version, err := (verifier.TCB{}).Encode(verifier.UnknownProduct); err == nil || version != (verifier.TCBVersion{}) {
		t.Errorf("an unknown product: %x, %v", version, err)
	}
}

// Each processor is of one product, as its reports say.
func TestModels(t *testing.T) {
	for _, p := range verifier.Products() {
		for _, m := range p.Models() {
			for model := int(m.First); model <= int(m.Last); model++ {
				r := verifier.Report{Version: 3, Family: m.Family, Model: byte(model)}
				if got, err := r.Product(); err != nil || got != p {
					t.Errorf("family 0x%x, model 0x%x: %v, %v; want %v", m.Family, model, got, err, p)
				}
			}
		}
	}
	if models := verifier.UnknownProduct.Models(); models != nil {
		t.Errorf("an unknown product has models %v", models)
	}
}
