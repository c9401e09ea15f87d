package kattest

import (
	"encoding/json"
	"io"
)

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// brief shortens what would widen the table; failures are told in full below it.
func brief(s string) string {
	const width = 34
	runes := []rune(s)
	if len(runes) <= width {
		return s
	}
	return string(runes[:width-9]) + "…" + string(runes[len(runes)-8:])
}
