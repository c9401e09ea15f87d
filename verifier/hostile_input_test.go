package verifier_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/verifier"
)

// inputFamilies are tables and evidence that the host has written.
func inputFamilies(l *lab) []family {
	var all []family
	for _, m := range l.layouts() {
		all = append(all, hostileTables(l, m))
		f := answers{lab: l, machine: m, good: l.evidence(m)}
		f.twin = attempt{data: f.good, policy: l.evidencePolicy(m)}
		all = append(all, f.text(), f.members(), f.large(), f.bindings())
	}
	return all
}

// hostileTables are certificate tables whose entries are not where they say.
func hostileTables(l *lab, m machine) family {
	entry := verifier.CertificateEntry{GUID: m.slot(), Data: l.leaf(m).Raw}
	other := verifier.CertificateEntry{GUID: slotASK, Data: bytes.Repeat([]byte{7}, 100)}
	report := l.report(m)
	good := table(entry, other)
	twin := attempt{data: append(bytes.Clone(report), good...), policy: l.tablePolicy(m)}
	f := family{name: m.String() + "/table", twin: twin}
	add := func(name string, v verifier.Verdict, code verifier.Code, table []byte) {
		a := attempt{data: append(bytes.Clone(report), table...), policy: twin.policy}
		f.cases = append(f.cases, hostile{name, a, v, code, true})
	}
	word := func(at int, value uint32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[at:], value)
		return b
	}
	size := uint32(len(good))
	for name, at := range map[string]int{"offset": 0x10, "length": 0x14, "second offset": 0x28, "second length": 0x2c} {
		old := binary.LittleEndian.Uint32(good[at:])
		// What is one more than fits, and what wraps around in 32 bits.
		for _, value := range []uint32{size, size + 1, 1 << 31, 1<<31 - 1, 1<<32 - 1, -old, 0xffffff00, old + 1<<16, old + 1<<24} {
			add(fmt.Sprintf("%s 0x%x", name, value), verifier.Malformed, verifier.CodeTable, word(at, value))
		}
		if strings.HasSuffix(name, "offset") {
			for _, value := range []uint32{0, 1, 23, 24, 48, 71} {
				add(fmt.Sprintf("%s %d, in the entries", name, value), verifier.Malformed, verifier.CodeTable, word(at, value))
			}
		}
	}
	add("both at once", verifier.Malformed, verifier.CodeTable, func() []byte {
		b := word(0x10, 0xffffffff)
		binary.LittleEndian.PutUint32(b[0x14:], 0x49)
		return b
	}())
	add("the same data twice", verifier.Malformed, verifier.CodeTable, word(0x28, binary.LittleEndian.Uint32(good[0x10:])))
	add("data that overlaps by a byte", verifier.Malformed, verifier.CodeTable, word(0x28, binary.LittleEndian.Uint32(good[0x28:])-1))
	for at := 48; at < 72; at++ { // the last entry is of zeros
		b := bytes.Clone(good)
		b[at] = 1
		add(fmt.Sprintf("byte %d of the last entry", at-48), verifier.Malformed, verifier.CodeTable, b)
	}
	for n := 1; n < 72; n++ {
		add(fmt.Sprintf("%d bytes", n), verifier.Malformed, verifier.CodeTable, good[:n])
	}
	add("one byte less", verifier.Malformed, verifier.CodeTable, good[:len(good)-1])
	add("65 entries", verifier.Malformed, verifier.CodeTable, table(append(slices.Repeat([]verifier.CertificateEntry{other}, 64), entry)...))
	add("entries alone", verifier.Malformed, verifier.CodeTable, bytes.Repeat([]byte{1}, 64<<10))
	add("entries without end", verifier.Malformed, verifier.CodeTable, bytes.Repeat(good[:24], 2730))
	add("no entries", verifier.Unavailable, verifier.CodeCertificate, make([]byte, 24))
	add("an entry of no bytes", verifier.Forged, verifier.CodeForm, table(verifier.CertificateEntry{GUID: m.slot()}))
	wrong := verifier.CertificateEntry{GUID: m.slot(), Data: l.leaf(m, put("3.8", l.der(1))).Raw}
	add("two wrong ones", verifier.Forged, verifier.CodeCertTCB, table(wrong, wrong))
	swapped := m.slot()
	for _, r := range [][2]int{{0, 4}, {4, 6}, {6, 8}} {
		slices.Reverse(swapped[r[0]:r[1]])
	}
	wrong.GUID = swapped
	add("a wrong one in the other byte order", verifier.Forged, verifier.CodeCertTCB, table(wrong))
	add("64 wrong ones", verifier.Forged, verifier.CodeForm, table(slices.Repeat([]verifier.CertificateEntry{{GUID: m.slot(), Data: bytes.Repeat([]byte{0x30, 0x80}, 450)}}, 64)...))
	slices.Reverse(swapped[:])
	add("a GUID backwards", verifier.Unavailable, verifier.CodeCertificate, table(verifier.CertificateEntry{GUID: swapped, Data: entry.Data}))
	return f
}

// answers makes families of evidence.
type answers struct {
	*lab
	machine
	good  []byte
	twin  attempt
	cases []hostile
}

func (f answers) family(name string) family {
	return family{name: f.String() + "/" + name, twin: f.twin, cases: f.cases}
}

func (f *answers) add(name string, data []byte, v verifier.Verdict, code verifier.Code) {
	f.cases = append(f.cases, hostile{name, attempt{data: data, policy: f.twin.policy}, v, code, true})
}

// malformed adds evidence that is none.
func (f *answers) malformed(name string, data []byte) {
	f.add(name, data, verifier.Malformed, verifier.CodeEvidence)
}

// replaced is the good evidence with other text in a place.
func (f answers) replaced(old, text string) []byte {
	if !bytes.Contains(f.good, []byte(old)) {
		f.Fatalf("%q does not stand in the evidence", old)
	}
	return bytes.Replace(f.good, []byte(old), []byte(text), 1)
}

// text is JSON that is none, or that parsers read in different ways.
func (f answers) text() family {
	for n := 1; n < len(f.good); n += 97 {
		f.malformed(fmt.Sprintf("%d bytes", n), f.good[:n])
	}
	for name, tail := range map[string]string{"a brace": "}", "another": string(f.good), "a comma": ",", "a NUL": "\x00", "text": "x", "a form feed": "\f", "a byte order mark": "\ufeff"} {
		f.malformed("behind it, "+name, append(bytes.Clone(f.good), tail...))
	}
	for name, data := range map[string][]byte{
		"before it, a byte order mark": append([]byte("\ufeff"), f.good...), "before it, a form feed": append([]byte("\f"), f.good...), "in a list": []byte("[" + string(f.good) + "]"),
	} {
		f.add(name, data, verifier.Malformed, verifier.CodeVersion) // it is no text
		f.cases[len(f.cases)-1].alone = false
	}
	f.malformed("not UTF-8", f.replaced(`"boot"`, "\"boo\xff\""))
	f.malformed("a long form of UTF-8", f.replaced(`"boot"`, "\"boo\xc1\xb4\""))
	f.malformed("a surrogate in UTF-8", f.replaced(`"boot"`, "\"boo\xed\xa0\x80\""))
	f.malformed("a line break in a string", f.replaced(`"boot"`, "\"bo\not\""))
	f.malformed("an escape that there is not", f.replaced(`"boot"`, `"\boo\q"`))
	f.malformed("half an escape", f.replaced(`"boot"`, `"boo\u00"`))
	f.malformed("single quotes", f.replaced(`"boot"`, `'boot'`))
	f.malformed("a comment", f.replaced(`"events":`, `/* */"events":`))
	f.malformed("a comma too many", f.replaced(`]}`, `],}`))
	f.malformed("no colon", f.replaced(`"events":`, `"events"`))
	f.malformed("a name that is none", f.replaced(`"events":`, `events:`))
	return f.family("text")
}

// members are objects with members twice, unknown, in another case, of another
// type, or without any.
func (f answers) members() family {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(f.good, &members); err != nil {
		f.Fatal(err)
	}
	for name, value := range members {
		member := fmt.Sprintf("%q:%s", name, value)
		f.malformed(name+" twice", f.replaced("{", "{"+member+","))
		f.malformed(name+" twice, by an escape", f.replaced("{", fmt.Sprintf(`{"\u%04x%s":%s,`, name[0], name[1:], value)))
		f.malformed(name+" twice, null", f.replaced("{", fmt.Sprintf(`{"%s":null,`, name)))
		f.malformed(name+" in capitals", f.replaced(fmt.Sprintf("%q:", name), fmt.Sprintf("%q:", strings.ToUpper(name))))
		f.malformed(name+" with a capital", f.replaced(fmt.Sprintf("%q:", name), fmt.Sprintf("%q:", strings.ToUpper(name[:1])+name[1:])))
		f.malformed(name+" with a blank", f.replaced(fmt.Sprintf("%q:", name), fmt.Sprintf("%q:", name+" ")))
		for _, other := range []string{"7", "true", "{}", `{"a":[]}`, "1e999", "[[]]", `["x"]`, "[-1]", "[256]"} {
			f.malformed(name+" is "+other, bytes.Replace(f.good, []byte(member), fmt.Appendf(nil, "%q:%s", name, other), 1))
		}
		if name != "events" && name != "certificates" { // of which there may be none
			f.malformed(name+" is null", bytes.Replace(f.good, []byte(member), fmt.Appendf(nil, "%q:null", name), 1))
			f.malformed(name+" is empty", bytes.Replace(f.good, []byte(member), fmt.Appendf(nil, `%q:""`, name), 1))
			f.malformed("no "+name, bytes.Replace(bytes.Replace(f.good, []byte(member), nil, 1), []byte(",,"), []byte(","), 1))
		}
	}
	for _, name := range []string{"", "x", "Report", "reports", "mediatype", "__proto__", "tpm", "hcl"} {
		f.malformed(fmt.Sprintf("unknown member %q", name), f.replaced("{", fmt.Sprintf("{%q:null,", name)))
		f.malformed(fmt.Sprintf("unknown member %q of an event", name), f.replaced(`"events":[{`, fmt.Sprintf(`"events":[{%q:null,`, name)))
	}
	for _, kind := range []string{"", "application/json", evidence.MediaType + " ", strings.ToUpper(evidence.MediaType), evidence.ChallengeMediaType, evidence.TPMMediaType, strings.Replace(evidence.MediaType, "v2", "v1", 1)} {
		f.malformed(fmt.Sprintf("media type %q", kind), f.replaced(evidence.MediaType, kind))
	}
	nonce := evidence.Hex(labNonce).String()
	for name, text := range map[string]string{
		"of 15 bytes": nonce[2:], "of 65 bytes": strings.Repeat("ab", 65), "of half a byte": nonce + "0", "of no digits": "xy" + nonce[2:], "with a blank": nonce[:2] + " " + nonce[3:],
		"with 0x": "0x" + nonce, "in base64": base64.StdEncoding.EncodeToString(labNonce), "huge": strings.Repeat("00", 400<<10),
	} {
		f.malformed("nonce "+name, f.replaced(nonce, text))
	}
	key := base64.StdEncoding.EncodeToString(labTLSKey)
	for name, text := range map[string]string{
		"without padding": strings.TrimRight(key, "="), "with too much padding": key + "=", "with padding in it": key[:4] + "==" + key[4:], "of another alphabet": "-_" + key[2:],
		"with a blank": key[:4] + " " + key[4:], "of one letter": "A", "of 4097 bytes": base64.StdEncoding.EncodeToString(make([]byte, 4097)),
	} {
		f.malformed("key "+name, f.replaced(key, text))
	}
	exporter := evidence.Hex(labExport).String()
	for name, text := range map[string]string{"of 31 bytes": exporter[2:], "of 33 bytes": exporter + "00", "empty": "", "of no digits": "xy" + exporter[2:]} {
		f.malformed("exporter "+name, f.replaced(exporter, text))
	}
	report := base64.StdEncoding.EncodeToString(f.parsed().Report)
	for _, n := range []int{0, 1, 1183, 1185, 4096} {
		f.malformed(fmt.Sprintf("report of %d bytes", n), f.replaced(report, base64.StdEncoding.EncodeToString(make([]byte, n))))
	}
	return f.family("member")
}

// large is evidence that costs much to read, or would.
func (f answers) large() family {
	f.add("a byte too many", append(bytes.Clone(f.good), bytes.Repeat([]byte(" "), verifier.MaxInput+1-len(f.good))...), verifier.Malformed, verifier.CodeSize)
	fill := func(prefix, unit, suffix string) []byte {
		n := (verifier.MaxInput - len(prefix) - len(suffix)) / len(unit)
		return []byte(prefix + strings.Repeat(unit, n) + suffix)
	}
	head := strings.TrimSuffix(string(f.replaced(`"events":[`, `"events":[]`))[:bytes.Index(f.good, []byte(`"events":`))], ",") + ","
	for name, data := range map[string][]byte{
		"braces": fill("", `{"events":`, ""), "brackets": fill(`{"events":`, "[", ""), "balanced brackets": []byte(`{"events":` + strings.Repeat("[", 1<<18) + strings.Repeat("]", 1<<18) + "}"),
		"nested 33 deep": []byte(`{"events":` + strings.Repeat("[", 33) + strings.Repeat("]", 33) + "}"), "nested objects": fill("", `{"a":`, "1}"),
		"events": fill(head+`"events":[{}`, ",{}", "]}"), "nulls for events": fill(head+`"events":[null`, ",null", "]}"), "numbers for events": fill(head+`"events":[0`, ",0", "]}"),
		"numbers for a report": fill(`{"report":[0`, ",0", "]}"), "a long number": fill(`{"events":`, "1", "}"), "a long name": fill(`{"`, "a", `":1}`), "escapes": fill(`{"`, `\u0061`, `":1}`),
		"members": fill("{"+`"a":1`, `,"a":1`, "}"), "a long text for base64": fill(`{"report":"`, "A", `"}`), "line breaks in base64": fill(`{"report":"`, `\n`, `"}`),
		"white space": fill("{", " ", "}"), "a long media type": fill(`{"mediaType":"`, "x", `"}`), "a long nonce": fill(`{"nonce":"`, "00", `"}`),
		"4097 events": []byte(head + `"events":[{"name":"","value":""}` + strings.Repeat(`,{"name":"","value":""}`, 4096) + "]}"),
		"backslashes": fill(`{"`, `\\`, `":1}`), "quotes": fill(`{"`, `\"`, `":1}`),
	} {
		f.malformed(name, data)
	}
	certs := f.parsed()
	certs.Certificates = make([]byte, 64<<10+1)
	f.malformed("a table of 64 KiB and a byte", f.encoded(certs))
	for i := range f.cases {
		f.cases[i].name = fmt.Sprintf("%s, %d KiB", f.cases[i].name, len(f.cases[i].data)>>10)
	}
	return f.family("large")
}

func (f answers) parsed() evidence.Evidence {
	e, err := evidence.Parse(f.good)
	if err != nil {
		f.Fatal(err)
	}
	return e
}

func (f answers) encoded(e evidence.Evidence) []byte {
	b, err := json.Marshal(e)
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// bindings are answers of which a part was exchanged: the report does not bind it.
func (f answers) bindings() family {
	change := func(name string, v verifier.Verdict, code verifier.Code, c func(*evidence.Evidence)) {
		e := f.parsed()
		c(&e)
		f.add(name, f.encoded(e), v, code)
	}
	for name, c := range map[string]func(*evidence.Evidence){
		"an event less":           func(e *evidence.Evidence) { e.Events = e.Events[:1] },
		"no events":               func(e *evidence.Evidence) { e.Events = nil },
		"an event more":           func(e *evidence.Evidence) { e.Events = append(e.Events, e.Events[0]) },
		"an empty event":          func(e *evidence.Evidence) { e.Events = append(e.Events, evidence.Event{}) },
		"events in another order": func(e *evidence.Evidence) { slices.Reverse(e.Events) },
		"another event":           func(e *evidence.Evidence) { e.Events[0].Value = "failed" },
		"name and value moved":    func(e *evidence.Evidence) { e.Events[0] = evidence.Event{Name: "bootd", Value: "one"} },
		"name and value swapped":  func(e *evidence.Evidence) { e.Events[0] = evidence.Event{Name: "done", Value: "boot"} },
	} {
		change(name, verifier.Mismatch, verifier.CodeReportData, c)
	}
	more := func(name string, v verifier.Verdict, code verifier.Code, c func(*evidence.Evidence)) {
		change(name, v, code, c)
		f.cases[len(f.cases)-1].alone = false
	}
	for at := range labNonce {
		more(fmt.Sprintf("byte %d of the nonce", at), verifier.Mismatch, verifier.CodeNonce, func(e *evidence.Evidence) { e.Nonce[at] ^= 1 })
	}
	for at := range labTLSKey {
		more(fmt.Sprintf("byte %d of the key", at), verifier.Forged, verifier.CodeTLSKey, func(e *evidence.Evidence) { e.PublicKey[at] ^= 1 })
	}
	for at := range labExport {
		more(fmt.Sprintf("byte %d of the exporter", at), verifier.Forged, verifier.CodeTLSKey, func(e *evidence.Evidence) { e.Exporter[at] ^= 1 })
	}
	more("a longer nonce", verifier.Mismatch, verifier.CodeNonce, func(e *evidence.Evidence) { e.Nonce = append(e.Nonce, 0) })
	more("a longer key", verifier.Forged, verifier.CodeTLSKey, func(e *evidence.Evidence) { e.PublicKey = append(e.PublicKey, 0) })
	more("a byte moved from nonce to key", verifier.Forged, verifier.CodeTLSKey, func(e *evidence.Evidence) {
		e.Nonce = append(e.Nonce, e.PublicKey[0])
		e.PublicKey = e.PublicKey[1:]
	})
	change("a report without evidence's data", verifier.Mismatch, verifier.CodeReportData, func(e *evidence.Evidence) { e.Report = f.report(f.machine) })
	more("a report changed to bind it", verifier.Forged, verifier.CodeSignature, func(e *evidence.Evidence) {
		e.Events = nil
		bound := e.ReportData()
		copy(e.Report[0x050:], bound[:])
	})
	replay := func(name string, v verifier.Verdict, code verifier.Code, demand func(*verifier.Policy)) {
		f.add(name, f.good, v, code)
		demand(&f.cases[len(f.cases)-1].policy)
	}
	replay("replayed", verifier.Mismatch, verifier.CodeNonce, func(p *verifier.Policy) { p.Nonce = []byte("another nonce ..") })
	replay("no nonce is known", verifier.Mismatch, verifier.CodeNonce, func(p *verifier.Policy) { p.Nonce = nil })
	replay("half the nonce", verifier.Mismatch, verifier.CodeNonce, func(p *verifier.Policy) { p.Nonce = labNonce[:8] })
	replay("an empty nonce", verifier.Mismatch, verifier.CodeNonce, func(p *verifier.Policy) { p.Nonce = []byte{} })
	replay("another connection", verifier.Forged, verifier.CodeTLSKey, func(p *verifier.Policy) { p.TLSKey = []byte("another key") })
	replay("another connection with that key", verifier.Forged, verifier.CodeTLSKey, func(p *verifier.Policy) { p.TLSExporter = make([]byte, 32) })
	replay("an empty key", verifier.Forged, verifier.CodeTLSKey, func(p *verifier.Policy) { p.TLSKey = []byte{} })
	replay("other report data", verifier.Mismatch, verifier.CodeReportData, func(p *verifier.Policy) { p.ReportData = &labReportData })
	return f.family("binding")
}
