package vtpm

// ParseQuote is tested without a signature before it.
var ParseQuote = parseQuote
