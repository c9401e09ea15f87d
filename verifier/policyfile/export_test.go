package policyfile

// ParseAlone reads a file over nothing, in place of the default.
func ParseAlone(text string) (File, error) { return parse([]byte(text), File{}, nil) }
