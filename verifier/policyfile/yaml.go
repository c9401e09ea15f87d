package policyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxDepth bounds the nesting of mappings and lists; the deepest field is at 4.
const maxDepth = 8

// load reads one YAML document, of which JSON is a part, and refuses what has no
// place in a policy: anchors, aliases, tags, and keys that stand twice.
func load(data []byte) (value, error) {
	switch {
	case len(data) > MaxSize:
		return value{}, fmt.Errorf("%d bytes, more than %d", len(data), MaxSize)
	case !utf8.Valid(data):
		return value{}, errors.New("not UTF-8")
	}
	var document, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	switch err := dec.Decode(&document); {
	case errors.Is(err, io.EOF):
		return value{}, errors.New("empty")
	case err != nil:
		return value{}, syntaxError(err)
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		return value{}, fmt.Errorf("line %d: a second document", more.Line)
	case !errors.Is(err, io.EOF):
		return value{}, syntaxError(err)
	}
	root := value{node: document.Content[0]}
	if err := root.check(0); err != nil {
		return value{}, err
	}
	return root, nil
}

func syntaxError(err error) error {
	return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
}

// value is a node of the document and where it stands, such as platform.TIO_EN.
type value struct {
	node *yaml.Node
	path string
}

func (v value) errorf(format string, args ...any) error {
	where := fmt.Sprintf("line %d", v.node.Line)
	if v.path != "" {
		where += ": " + v.path
	}
	return fmt.Errorf("%s: %w", where, fmt.Errorf(format, args...))
}

// child returns the value of a member or of an entry.
func (v value) child(name string, node *yaml.Node) value {
	if v.path != "" && !strings.HasPrefix(name, "[") {
		name = "." + name
	}
	return value{node, v.path + name}
}

func (v value) check(depth int) error {
	switch {
	case depth > maxDepth:
		return v.errorf("nested deeper than %d", maxDepth)
	case v.node.Kind == yaml.AliasNode || v.node.Anchor != "":
		return v.errorf("anchors and aliases have no place in a policy")
	case v.node.Style&yaml.TaggedStyle != 0:
		return v.errorf("tags have no place in a policy")
	}
	switch v.node.Kind {
	case yaml.MappingNode:
		return v.checkMembers(depth)
	case yaml.SequenceNode:
		for i, n := range v.node.Content {
			if err := v.child(fmt.Sprintf("[%d]", i), n).check(depth + 1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v value) checkMembers(depth int) error {
	lines := map[string]int{}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key := value{v.node.Content[i], v.path}
		if key.node.Kind != yaml.ScalarNode {
			return key.errorf("a name must be a plain text")
		}
		if err := key.check(depth); err != nil {
			return err
		}
		name := key.node.Value
		if first, twice := lines[name]; twice {
			return key.errorf("%.40q stands twice, first in line %d", name, first)
		}
		lines[name] = key.node.Line
		if err := v.child(name, v.node.Content[i+1]).check(depth + 1); err != nil {
			return err
		}
	}
	return nil
}

// decoder collects what is wrong.
type decoder struct {
	read func(name string) ([]byte, error)
	errs []error
}

// maxErrors bounds how much is told of one file.
const maxErrors = 20

func (d *decoder) errorf(v value, format string, args ...any) {
	if len(d.errs) < maxErrors {
		d.errs = append(d.errs, v.errorf(format, args...))
	}
}

// members calls visit for each member of a mapping. An empty one is refused: it
// could be taken for one that demands nothing.
func (d *decoder) members(v value, visit func(name string, v value)) {
	if v.node.Kind != yaml.MappingNode {
		d.errorf(v, "want names and values, not %s", v.kind())
		return
	}
	if len(v.node.Content) == 0 {
		d.errorf(v, "empty: leave it out for what the default says")
	}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		name := v.node.Content[i].Value
		member := v.child(name, v.node.Content[i+1])
		visit(name, member)
	}
}

// entries returns what a list holds. An empty one is refused, and what it holds twice.
func (d *decoder) entries(v value, what string) []value {
	if v.node.Kind != yaml.SequenceNode {
		d.errorf(v, "want %s, not %s", what, v.kind())
		return nil
	}
	if len(v.node.Content) == 0 {
		d.errorf(v, "an empty list: want %s, or leave it out for what the default says", what)
	}
	all := make([]value, 0, len(v.node.Content))
	seen := map[string]bool{}
	for i, n := range v.node.Content {
		entry := v.child(fmt.Sprintf("[%d]", i), n)
		if n.Kind == yaml.ScalarNode && seen[n.Value] {
			d.errorf(entry, "%.40q stands twice", n.Value)
		}
		seen[n.Value] = true
		all = append(all, entry)
	}
	return all
}

// text returns a scalar as it is written: whatever YAML would take 010, off or
// 1.50 for, here they are these letters.
func (d *decoder) text(v value, want string) (string, bool) {
	switch {
	case v.node.Kind != yaml.ScalarNode:
		d.errorf(v, "want %s, not %s", want, v.kind())
	case v.node.Value == "" || v.node.Style == 0 && v.node.Tag == "!!null":
		d.errorf(v, "empty: want %s", want)
	default:
		return v.node.Value, true
	}
	return "", false
}

// word returns a plain word such as any, or "" where something else stands there.
func (v value) word() string {
	if v.node.Kind != yaml.ScalarNode {
		return ""
	}
	return v.node.Value
}

func (v value) kind() string {
	switch v.node.Kind {
	case yaml.MappingNode:
		return "names and values"
	case yaml.SequenceNode:
		return "a list"
	default:
		return fmt.Sprintf("%.40q", v.node.Value)
	}
}
