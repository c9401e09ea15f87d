# The two commands of the README are `make demo` and `make test`. Each does all
# its own set-up on a fresh Debian 12 machine.

OUT   := out
STACK := $(OUT)/stack
LOCKS := reproducible/lock.json launcher/image/testdata/lock.json $(wildcard examples/*/lock.json) internal/e2e/testdata/lock.json

# Fetch the Go that go.mod names where the machine's own is older.
export GOTOOLCHAIN := auto

# The tests run themselves in containers that hold no C library.
export CGO_ENABLED := 0

.PHONY: demo test reproduce check lock bench bench-start fuzz soak setup stack clean

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

# Processor time of a start, beside Debian's cloud kernel and a trivial init.
bench-start: setup stack
	scripts/bench-start $(OUT)

fuzz: setup
	scripts/fuzz

# Guests started, stopped and killed one after another, and a day's output at ten lines
# a second: some 20 minutes on two processors without KVM. SEED repeats the kills of a
# run that printed it.
STARTS := 200
KILLS  := 20
LINES  := 864000
SEED   :=

soak: setup stack
	KATTEST_STACK=$(abspath $(STACK)) KATTEST_SOAK_STARTS=$(STARTS) KATTEST_SOAK_KILLS=$(KILLS) KATTEST_SOAK_LINES=$(LINES) KATTEST_SOAK_SEED=$(SEED) \
		go test -count=1 -v -timeout=3h -run='^TestSoak' ./internal/e2e

setup:
	@scripts/setup

stack: setup
	@go run ./cmd/kattest build --out $(STACK)

clean:
	rm -rf $(OUT)
