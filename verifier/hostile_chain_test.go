package verifier_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"time"

	"github.com/kraudcloud/kattest/verifier"
)

// chainFamilies are authorities that are none, each of which has certified the
// leaf that comes with a report.
func chainFamilies(l *lab) []family {
	var all []family
	for _, m := range l.layouts() {
		if l.prefix == asSimulated {
			all = append(all, simulatedChains(l, m))
			continue
		}
		good := l.renewed(m)
		twin, wrong := offer{leaf: l.under(m, good, "stranger"), ask: good}, wrongASKs(l, m)
		for _, way := range []string{"table", "policy", "source"} {
			f := family{name: m.String() + "/ASK in the " + way, twin: twin.by(l, m, way)}
			for _, o := range wrong {
				f.cases = append(f.cases, hostile{o.name, o.by(l, m, way), verifier.Forged, o.code, true})
			}
			all = append(all, f)
		}
	}
	return all
}

// renewed is a machine's ASK with another key than the one that is compiled in,
// after change.
func (l *lab) renewed(m machine, change ...func(*x509.Certificate)) *x509.Certificate {
	home, _ := l.above(m)
	t := l.template("")
	t.Subject, t.IsCA, t.BasicConstraintsValid, t.KeyUsage = home.Subject, true, true, x509.KeyUsageCertSign
	for _, c := range change {
		c(t)
	}
	return l.issue(t, l.ark(m.product), l.private("stranger").Public(), "ark")
}

// under is a machine's leaf that ask certified.
func (l *lab) under(m machine, ask *x509.Certificate, signer string) *x509.Certificate {
	return l.issue(l.leafTemplate(m), ask, l.private(l.leafKey(m)).Public(), signer)
}

// changes of an authority, which make it none.
var badAuthorities = map[string]func(*x509.Certificate){
	"is no CA":                 func(t *x509.Certificate) { t.IsCA = false },
	"has no basic constraints": func(t *x509.Certificate) { t.IsCA, t.BasicConstraintsValid = false, false },
	"may sign lists alone":     func(t *x509.Certificate) { t.KeyUsage = x509.KeyUsageCRLSign },
	"signed with SHA-256":      func(t *x509.Certificate) { t.SignatureAlgorithm = x509.SHA256WithRSAPSS },
	"signed with SHA-512":      func(t *x509.Certificate) { t.SignatureAlgorithm = x509.SHA512WithRSAPSS },
	"signed with PKCS #1 v1.5": func(t *x509.Certificate) { t.SignatureAlgorithm = x509.SHA384WithRSA },
	"has something critical":   critical,
	"has a critical constraint": func(t *x509.Certificate) {
		t.PermittedDNSDomains, t.PermittedDNSDomainsCritical = []string{"x"}, true
		critical(t)
	},
}

func critical(t *x509.Certificate) {
	t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}})
}

var badDates = map[string]func(*x509.Certificate){
	"has expired":     func(t *x509.Certificate) { t.NotAfter = labTime.Add(-time.Second) },
	"is not yet good": func(t *x509.Certificate) { t.NotBefore = labTime.Add(time.Second) },
}

// offer is an ASK that is not compiled in and what it has certified.
type offer struct {
	name      string
	code      verifier.Code
	leaf, ask *x509.Certificate
}

// by offers an ASK with the report, by the caller or by a Source: the host has a
// say in all three.
func (o offer) by(l *lab, m machine, way string) attempt {
	a := attempt{data: l.report(m), policy: l.policy(m)}
	a.policy.VCEK = o.leaf
	switch way {
	case "table":
		a.data = append(a.data, table(verifier.CertificateEntry{GUID: slotASK, Data: o.ask.Raw})...)
	case "policy":
		a.policy.Chain = []*x509.Certificate{o.ask}
	case "source":
		a.source = source{chain: inPEM(o.ask)}
	}
	return a
}

func wrongASKs(l *lab, m machine) []offer {
	var all []offer
	add := func(name string, code verifier.Code, leaf, ask *x509.Certificate) {
		all = append(all, offer{name, code, leaf, ask})
	}
	good := l.renewed(m)
	byStranger := func(name string, code verifier.Code, ask *x509.Certificate) {
		add(name, code, l.under(m, ask, "stranger"), ask)
	}
	for name, change := range badAuthorities {
		byStranger(name, verifier.CodeChain, l.renewed(m, change))
	}
	for name, change := range badDates {
		byStranger(name, verifier.CodeValidity, l.renewed(m, change))
	}
	byStranger("of a name with a blank", verifier.CodeChain, l.renewed(m, func(t *x509.Certificate) { t.Subject.CommonName += " " }))
	home, key := l.above(m)
	template, public := l.caTemplate(""), l.private("stranger").Public()
	template.Subject = home.Subject
	byStranger("signed by itself", verifier.CodeChain, l.issue(template, template, public, "stranger"))
	byStranger("signed by itself, in the ARK's name", verifier.CodeChain, l.issue(template, l.ark(m.product), public, "stranger"))
	byStranger("signed by the ASK", verifier.CodeChain, l.issue(template, home, public, key))
	byStranger("signed by the ASK, in the ARK's name", verifier.CodeChain, l.issue(template, l.ark(m.product), public, key))
	weak := l.issue(template, l.ark(m.product), l.private("weak").Public(), "ark")
	add("of 2048 bits", verifier.CodeChain, l.under(m, weak, "weak"), weak)
	p384 := l.issue(template, l.ark(m.product), l.private("other").Public(), "ark")
	leafTemplate := l.leafTemplate(m)
	leafTemplate.SignatureAlgorithm = x509.ECDSAWithSHA384
	add("of P-384", verifier.CodeChain, l.issue(leafTemplate, p384, l.private(l.leafKey(m)).Public(), "other"), p384)
	leaf := l.leaf(m)
	add("a leaf", verifier.CodeChain, l.issue(leafTemplate, leaf, l.private(l.leafKey(m)).Public(), l.leafKey(m)), leaf)
	add("another's", verifier.CodeChain, l.under(m, good, "stranger"), home)
	add("the ARK", verifier.CodeChain, l.under(m, l.ark(m.product), "ark"), l.ark(m.product))
	other := m
	other.key = map[verifier.SigningKey]verifier.SigningKey{verifier.VCEK: verifier.VLEK, verifier.VLEK: verifier.VCEK}[m.key]
	ask, key := l.above(other)
	add("for the other kind of key", verifier.CodeChain, l.under(m, ask, key), ask)
	for _, p := range verifier.Products() {
		if p == m.product {
			continue
		}
		elsewhere := machine{product: p, key: m.key}
		ask, key := l.above(elsewhere)
		add("of "+p.String(), verifier.CodeChain, l.under(m, ask, key), ask)
		template.Subject = ask.Subject
		byStranger("named as that of "+p.String(), verifier.CodeChain, l.issue(template, l.ark(m.product), public, "ark"))
	}
	return all
}

// simulatedChains are those that a user is told to trust.
func simulatedChains(l *lab, m machine) family {
	ark, ask := l.ark(m.product), l.renewed(m)
	trust := func(ark, ask *x509.Certificate, signer string) attempt {
		a := attempt{data: l.report(m), policy: l.policy(m)}
		a.policy.VCEK = l.under(m, ask, signer)
		a.policy.Simulated = &verifier.SimulatedChain{ASK: ask, ARK: ark, CRL: l.crlBy(ark, "ark")}
		return a
	}
	f := family{name: m.String() + "/chain", twin: trust(ark, ask, "stranger")}
	add := func(name string, code verifier.Code, a attempt) {
		f.cases = append(f.cases, hostile{name, a, verifier.Forged, code, true})
	}
	for name, change := range badAuthorities {
		add("an ASK that "+name, verifier.CodeChain, trust(ark, l.renewed(m, change), "stranger"))
		template := l.caTemplate("ARK-" + m.product.String())
		change(template)
		bad := l.issue(template, template, l.private("ark").Public(), "ark")
		add("an ARK that "+name, verifier.CodeChain, trust(bad, ask, "stranger"))
	}
	for name, change := range badDates {
		add("an ASK that "+name, verifier.CodeValidity, trust(ark, l.renewed(m, change), "stranger"))
		template := l.caTemplate("ARK-" + m.product.String())
		change(template)
		add("an ARK that "+name, verifier.CodeValidity, trust(l.issue(template, template, l.private("ark").Public(), "ark"), ask, "stranger"))
	}
	template := l.caTemplate("ARK-" + m.product.String())
	template.MaxPathLenZero = true
	add("an ARK below which no authority may be", verifier.CodeChain, trust(l.issue(template, template, l.private("ark").Public(), "ark"), ask, "stranger"))
	template = l.caTemplate("ARK-" + m.product.String())
	add("an ARK that another signed", verifier.CodeChain, trust(l.issue(template, template, l.private("ark").Public(), "stranger"), ask, "stranger"))
	add("another ARK of that name", verifier.CodeChain, trust(l.issue(template, template, l.private("asvk").Public(), "asvk"), ask, "stranger"))
	add("the other way round", verifier.CodeChain, trust(ask, ark, "ark"))
	add("the ASK twice", verifier.CodeChain, trust(ask, ask, "stranger"))
	add("the leaf by the ARK", verifier.CodeChain, trust(ark, ark, "stranger"))
	weak := l.issue(template, template, l.private("weak").Public(), "weak")
	below := l.issue(l.caTemplate("SEV-"+m.product.String()), weak, l.private("stranger").Public(), "weak")
	a := trust(ark, below, "stranger")
	a.policy.Simulated = &verifier.SimulatedChain{ASK: below, ARK: weak, CRL: l.crlBy(weak, "weak")}
	add("an ARK of 2048 bits", verifier.CodeChain, a)
	home, _ := l.above(m)
	a = f.twin // with the leaf that is known from there
	a.policy.Simulated = &verifier.SimulatedChain{ASK: home, ARK: ark, CRL: l.crl(m.product)}
	add("another ASK under the same ARK", verifier.CodeChain, a)
	a = trust(ark, ask, "stranger")
	a.policy.Simulated = nil
	add("not trusted", verifier.CodeChain, a)
	return f
}
