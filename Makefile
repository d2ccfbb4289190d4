# Each target leaves nothing behind except ./bin. Tests, benchmarks and the demo need
# root: they run Docker engines in network namespaces of their own. `make units` needs no
# root, and skips the tests that do.

GO ?= go
PARALLEL ?= 2
WIDTH ?= 4
BENCH ?= .
SUITE ?= sid
FUZZ ?= 10s
FLAKE ?= 100
FLAKE_KERNEL ?= $(FLAKE)
FLAKE_ENGINES ?= 5

# Only make units skips the tests that need root.
unexport NETGUARD_TEST_NO_ROOT

# Unit tests, and tests with engines, which need a quiet machine. WIDTH is how many of the
# latter run at a time: they spend half of their time waiting.
UNITS = $$($(GO) list ./... | grep -v '^netguard/integration')
ENGINES = ./integration/...
ENGINE_TESTS = $(GO) test -count=1 -timeout 40m -p 1 -parallel $(WIDTH) $(ENGINES)

# First remove what an interrupted earlier run left, then run, then remove what this run
# left. The exit code is that of the run.
SWEEP = $(GO) run ./integration/reaper
define swept
	@$(SWEEP)
	@status=0; { $(1); } || status=$$?; $(SWEEP) || status=1; exit $$status
endef

.PHONY: help deps build test newer units race fuzz flake bench soak demo lint sweep clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install with apt what the tests need and the machine lacks
	@integration/deps

build: ## bin/netguard, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o bin/netguard ./cmd/netguard

test: deps ## every test (root; minutes)
	$(call swept,failed=0; \
		$(GO) test -count=1 -timeout 20m -p $(PARALLEL) $(UNITS) || failed=1; \
		$(GO) test -count=1 -tags faultinject ./internal/fault || failed=1; \
		$(ENGINE_TESTS) || failed=1; \
		test $$failed = 0)

newer: deps ## the tests with engines, against the Docker of Debian SUITE=sid
	integration/newer $(CURDIR)/bin/newer $(SUITE)
	$(call swept,NETGUARD_TEST_DOCKERD=$(CURDIR)/bin/newer/dockerd $(ENGINE_TESTS))

units: ## the tests that need neither an engine nor root: under a minute
	NETGUARD_TEST_NO_ROOT=1 $(GO) test -count=1 -timeout 10m -p $(PARALLEL) $(UNITS)
	$(GO) test -count=1 -tags faultinject ./internal/fault

race: ## the tests that need no engine, with the race detector (root)
	@integration/deps race
	CGO_ENABLED=1 $(GO) test -race -count=1 -timeout 20m -p $(PARALLEL) $(UNITS)

fuzz: ## each fuzz target for FUZZ=10s; failing inputs are kept beside it in testdata
	@failed=0; for target in $$(grep -rHo '^func Fuzz[A-Za-z0-9]*' --include='*_test.go' . | sed 's,/[^/]*_test.go:func ,:,'); do \
		$(GO) test -run '^$$' -fuzz "^$${target#*:}$$" -fuzztime $(FUZZ) "$${target%:*}" || failed=1; \
	done; test $$failed = 0

# The hog is a busy loop. It ends when the shell that started it ends.
HOG = { while kill -0 $$$$ 2>/dev/null; do :; done; } & hog=$$!

flake: deps ## units FLAKE=100 times without and FLAKE_KERNEL=100 times with root beside a busy loop, engines FLAKE_ENGINES=5 times
	$(call swept,failed=0; $(HOG); \
		test $(FLAKE) = 0 || NETGUARD_TEST_NO_ROOT=1 $(GO) test -count=$(FLAKE) -timeout 0 -p 1 $(UNITS) || failed=1; \
		test $(FLAKE_KERNEL) = 0 || $(GO) test -count=$(FLAKE_KERNEL) -timeout 0 -p 1 $(UNITS) || failed=1; \
		kill $$hog; \
		for run in $$(seq $(FLAKE_ENGINES)); do $(ENGINE_TESTS) || failed=1; done; \
		test $$failed = 0)

bench: deps ## measure against real engines (BENCH=pattern)
	$(call swept,$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime 1x -count 1 -timeout 60m -p 1 $(ENGINES))

soak: deps ## the long forms of tests: crashes, leaks, storms (hours)
	$(call swept,NETGUARD_SOAK=1 $(GO) test -count=1 -v -run '^TestSoak' -timeout 0 -p 1 $(ENGINES))

demo: deps ## see it work, in namespaces that are gone afterwards
	$(call swept,$(GO) run ./integration/demo)

lint: ## formatting, vet, staticcheck, and who may import whom
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) test -count=1 ./integration/house

sweep: ## remove what an interrupted test run left
	@$(SWEEP)

clean: sweep ## remove bin as well
	rm -rf bin
