package kattest

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"github.com/kraudcloud/kattest/verifier"
	"github.com/kraudcloud/kattest/verifier/vtpm"
)

// tpmFields are what came of a virtual TPM. Its values are as they are given, and
// nothing says that they were quoted.
func tpmFields(t *verifier.TPM) []field {
	var fields []field
	add := func(name, value string) { fields = append(fields, field{name, value}) }
	if h := t.HCL; h != nil {
		add("HCLAkPub", h.AK.String())
		add("runtime data", string(h.RuntimeData))
	}
	if s := t.SVSM; s != nil {
		add("SVSM nonce", s.Nonce.String())
		add("SVSM manifest", fmt.Sprintf("%d bytes", len(s.Manifest)))
		ak, err := vtpm.ParseAK(s.AK)
		if err != nil {
			add("AK", err.Error())
		} else {
			add("AK", fmt.Sprintf("%v, name %x", ak, ak.Name()))
		}
	}
	if t.Quote != nil {
		fields = append(fields, quoteFields(t.Quote.Message, t.Quote.PCRs)...)
	}
	if len(t.EventLog) > 0 {
		log, err := vtpm.ParseEventLog(t.EventLog)
		if err != nil {
			add("event log", err.Error())
		} else {
			add("event log", fmt.Sprintf("%d events", log.Events()))
		}
	}
	return fields
}

func quoteFields(message, values []byte) []field {
	quote, err := vtpm.ParseQuote(message)
	if err != nil {
		return []field{{"quote", err.Error()}}
	}
	fields := []field{{"quote extraData", hex.EncodeToString(quote.ExtraData)}}
	pcrs, err := quote.Values(values)
	if err != nil {
		return append(fields, field{"PCRs", err.Error()})
	}
	for _, pcr := range slices.SortedFunc(maps.Keys(pcrs), vtpm.PCR.Compare) {
		fields = append(fields, field{"PCR " + pcr.String(), hex.EncodeToString(pcrs[pcr])})
	}
	return fields
}
