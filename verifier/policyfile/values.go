package policyfile

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kraudcloud/kattest/measure/idblock"
	"github.com/kraudcloud/kattest/verifier"
)

// Words that stand where a value could.
const (
	anyWord       = "any"
	noneWord      = "none"
	allowWord     = "allow"
	refuseWord    = "refuse"
	requiredWord  = "required"
	forbiddenWord = "forbidden"
	defaultWord   = "default"
)

// oneOf reads one of some words; what is none of them is "".
func (d *decoder) oneOf(v value, words ...string) string {
	want := strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
	text, ok := d.text(v, want)
	if ok && !slices.Contains(words, text) {
		d.errorf(v, "want %s, not %.40q", want, text)
		return ""
	}
	return text
}

// number reads a whole number in decimal, or in hexadecimal behind 0x.
func (d *decoder) number(v value, maximum uint64) uint64 {
	want := fmt.Sprintf("a number from 0 to %d", maximum)
	text, ok := d.text(v, want)
	if !ok {
		return 0
	}
	digits, base := text, 10
	if strings.HasPrefix(text, "0x") {
		digits, base = text[2:], 16
	}
	n, err := strconv.ParseUint(digits, base, 64)
	if err != nil || n > maximum || base == 10 && len(text) > 1 && text[0] == '0' {
		d.errorf(v, "want %s, not %.40q", want, text)
		return 0
	}
	return n
}

// hex fills to from its hexadecimal digits.
func (d *decoder) hex(v value, to []byte) {
	want := fmt.Sprintf("%d hexadecimal digits", 2*len(to))
	text, ok := d.text(v, want)
	if !ok {
		return
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(to) {
		d.errorf(v, "want %s, not %.40q", want, text)
		return
	}
	copy(to, b)
}

// numbers reads N numbers of a byte with dots between them.
func (d *decoder) numbers(v value, to []byte) {
	want := strings.TrimPrefix(strings.Repeat(".N", len(to)), ".")
	text, ok := d.text(v, want)
	if !ok {
		return
	}
	parts := strings.Split(text, ".")
	if len(parts) != len(to) {
		d.errorf(v, "want %s, not %.40q", want, text)
		return
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil || strconv.FormatUint(n, 10) != part {
			d.errorf(v, "want %s, each from 0 to 255, not %.40q", want, text)
			return
		}
		to[i] = byte(n)
	}
}

func (d *decoder) texts(v value, what string) []string {
	var all []string
	for _, e := range d.entries(v, what) {
		if text, ok := d.text(e, "a text"); ok {
			all = append(all, text)
		}
	}
	return all
}

// key reads a key's digest, or the file of the key.
func (d *decoder) key(v value) idblock.KeyDigest {
	text, ok := d.text(v, "a digest of 96 hexadecimal digits or a file")
	if !ok {
		return idblock.KeyDigest{}
	}
	if len(text) == 2*len(idblock.KeyDigest{}) {
		digest, err := idblock.ParseKeyDigest(text)
		if err != nil {
			d.errorf(v, "%w", err)
		}
		return digest
	}
	if d.read == nil {
		d.errorf(v, "want a digest of 96 hexadecimal digits, not %.40q", text)
		return idblock.KeyDigest{}
	}
	digest, err := keyDigest(d.read, text)
	if err != nil {
		d.errorf(v, "%w", err)
	}
	return digest
}

func keyDigest(read func(string) ([]byte, error), name string) (idblock.KeyDigest, error) {
	data, err := read(name)
	if err != nil {
		return idblock.KeyDigest{}, err
	}
	if len(data) > maxKey {
		return idblock.KeyDigest{}, fmt.Errorf("%s: more than %d bytes", name, maxKey)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) != 0 {
		return idblock.KeyDigest{}, fmt.Errorf("%s: want one PEM block %q", name, "PUBLIC KEY")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return idblock.KeyDigest{}, fmt.Errorf("%s: %w", name, err)
	}
	key, err := idblock.NewPublicKey(public)
	if err != nil {
		return idblock.KeyDigest{}, fmt.Errorf("%s: %w", name, err)
	}
	return key.Digest(), nil
}

// levels reads security patch levels. Those that are not named stay as they are.
func (d *decoder) levels(v value, p verifier.Product, tcb *verifier.TCB) {
	d.members(v, func(name string, v value) {
		switch to := level(tcb, name); {
		case to == nil:
			d.errorf(v, "unknown: want fmc, bootloader, tee, snp or microcode")
		case name == "fmc" && p != verifier.Turin:
			d.errorf(v, "%v has no such level", p)
		default:
			*to = byte(d.number(v, 255))
		}
	})
}

// level returns the level of that name, nil where there is none.
func level(t *verifier.TCB, name string) *byte {
	switch name {
	case "fmc":
		return &t.FMC
	case "bootloader":
		return &t.Bootloader
	case "tee":
		return &t.TEE
	case "snp":
		return &t.SNP
	case "microcode":
		return &t.Microcode
	default:
		return nil
	}
}

// levelNames are the names of a product's levels.
func levelNames(p verifier.Product) []string {
	names := []string{"fmc", "bootloader", "tee", "snp", "microcode"}
	if p != verifier.Turin {
		return names[1:]
	}
	return names
}

func writeLevels(p verifier.Product, t verifier.TCB) string {
	var parts []string
	for _, name := range levelNames(p) {
		parts = append(parts, fmt.Sprintf("%s: %d", name, *level(&t, name)))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// writeList writes a list on one line, each entry quoted.
func writeList[T any](all []T, text func(T) string) string {
	parts := make([]string, 0, len(all))
	for _, one := range all {
		parts = append(parts, quote(text(one)))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func writeTexts(all []string) string { return writeList(all, func(s string) string { return s }) }

// quote writes a text in YAML's double quotes, of which JSON's are a part.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case strconv.IsPrint(r) && r != '\ufeff':
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

var errLabel = errors.New("any host can sign an ID block: id-keys or author-keys must say who may")
