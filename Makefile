# The two commands of the README are `make demo` and `make test`. Each does all
# its own set-up on a fresh Debian 12 machine.

OUT   := out
STACK := $(OUT)/stack
LOCKS := reproducible/lock.json launcher/image/testdata/lock.json $(wildcard examples/*/lock.json)

# Fetch the Go that go.mod names where the machine's own is older.
export GOTOOLCHAIN := auto

.PHONY: demo test reproduce check lock bench bench-start fuzz setup stack clean

demo: setup
	@scripts/demo $(OUT)

test: setup stack
	go vet ./...
	KATTEST_STACK=$(abspath $(STACK)) go test -count=1 -timeout=55m ./...

# The stack a second time, as another machine would build it, and the same bytes.
reproduce: setup
	go run ./cmd/kattest build --out $(STACK) --twice

check: setup
	scripts/check

# Resolve the locked packages anew, at what the machine's mirror offers today.
lock: setup
	go run ./cmd/kattest lock $(LOCKS)

bench: setup stack
	KATTEST_STACK=$(abspath $(STACK)) go test -run='^$$' -bench=. -benchmem ./...

# Processor time of a start, beside Debian's cloud kernel.
bench-start: setup stack
	scripts/bench-start $(OUT)

fuzz: setup
	scripts/fuzz

setup:
	@scripts/setup

stack: setup
	@go run ./cmd/kattest build --out $(STACK)

clean:
	rm -rf $(OUT)
