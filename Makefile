# ashlar: what a developer and CI run. "make" lists the targets.
#
# "make test" runs five layers, one after the other, each within its time budget (below). A layer that
# overruns is killed and counts as failed. The last line says what ran: "N passed, N failed, N skipped".
# The budgets are limits for two cores and cold caches; a usual run takes a part of each.
STATIC_BUDGET ?= 2m
UNIT_BUDGET   ?= 8m
SIM_BUDGET    ?= 4m
FAULT_BUDGET  ?= 9m
E2E_BUDGET    ?= 12m

SHELL   := /bin/bash
GO      ?= go
TAGS    := invariants
TOOLS   := $(CURDIR)/bin/tools
RESULTS := $(CURDIR)/bin/test-results.jsonl
LAYER   := $(TOOLS)/layer
export PATH := $(TOOLS):$(PATH)

# Tools at pinned versions, built into bin/tools. Raise a version here and nowhere else.
PROTOC_GEN_GO_VERSION      := v1.36.11
PROTOC_GEN_GO_GRPC_VERSION := v1.6.2
GOLANGCI_LINT_VERSION      := v2.15.0

# The packages of the unit layer.
UNIT_PKGS = $(shell $(GO) list ./... | grep -vE '/scripts/(lint|e2e)$$')

# The simulation layer: the tests that draw operations and faults from seeds and compare with a model or check the
# history. They are tests of their packages, and the unit layer runs them too, with -race. Here they run without it:
#   storage/raftlog                 operations; a crash at every write and sync
#   storage/blockstore              operations, crashes, power cuts; its allocator
#   storage/volume                  links that lose, delay and repeat; leaders that move
#   chunkserver/internal/copyset    replicas that apply the same log, one of which restarts
#   chunkserver/internal/multiraft  power cuts; lost messages, partitions and moved leaders, checked for linearizability
#   chunkserver/internal/sim        whole clusters of chunkservers, repeatable: crashes, partitions, stops, slow disks; every crash
#                                   point of a short run; deliberate bugs, each of which has to be found (500 seeds from SIM_SEED on)
#   gateway/internal/session        random PDUs
# SIM_SEED is added to the seeds of storage/volume and of copyset, and is the first of sim. The other seeds are fixed in the tests, except that
# session draws another one each time and that in multiraft time and scheduling differ each time.
SIM_PKGS  = $(addprefix ./,storage/raftlog storage/blockstore/... storage/volume chunkserver/internal/copyset \
            chunkserver/internal/multiraft chunkserver/internal/sim gateway/internal/session)
SIM_RUN   = ^Test(Crash.*|Model|AllocatorModel|AgainstModel|CompareAndWriteTakesEffectOnce|Replicas|PowerCut|Linearizable|Random|Sim.*)$$
SIM_COUNT ?= 20

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9_-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- build and run -----------------------------------------------------------------------------------

.PHONY: build
build: ## build bin/ashlar
	CGO_ENABLED=0 $(GO) build -o bin/ashlar ./cmd/ashlar

.PHONY: run
run: build ## build and run a whole cluster on this machine in the foreground (ashlar dev)
	exec bin/ashlar dev $(ARGS)

.PHONY: gen
gen: $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-go-grpc ## make the Go code of api/**/*.proto (needs protoc)
	bash scripts/gen.sh

.PHONY: fmt
fmt: $(TOOLS)/golangci-lint ## format the Go code as gofumpt does, which make lint asks for
	$(TOOLS)/golangci-lint fmt ./...

# ---- tests -------------------------------------------------------------------------------------------

.PHONY: test
test: ## everything that CI runs, with a summary as its last line
	@rm -f $(RESULTS)
	@rm -f bin/ashlar
	@for l in static unit sim fault e2e; do $(MAKE) --no-print-directory test-$$l || true; done
	@$(LAYER) -sum $(RESULTS)

# One layer alone: prints its counts; "make test" sums them up.
.PHONY: test-static
test-static: $(LAYER) $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-go-grpc ## static layer: format, vet, generated code, go.mod, import table, sizes
	@$(LAYER) -name static -budget $(STATIC_BUDGET) -results $(RESULTS) -- \
	  $(GO) test -json -count=1 -timeout $(STATIC_BUDGET) ./scripts/lint

.PHONY: test-unit
test-unit: $(LAYER) ## unit layer: all packages with -race, -shuffle and the invariants tag
	@$(LAYER) -name unit -budget $(UNIT_BUDGET) -results $(RESULTS) -- \
	  $(GO) test -json -race -shuffle=on -tags $(TAGS) -timeout $(UNIT_BUDGET) $(UNIT_PKGS)

.PHONY: test-sim
test-sim: $(LAYER) ## simulation layer: the tests with seeded operations and faults, with other seeds than the unit layer
	@$(LAYER) -name simulation -budget $(SIM_BUDGET) -results $(RESULTS) -- \
	  env SIM_SEED=$(or $(SIM_SEED),1000) \
	  $(GO) test -json -count=1 -tags $(TAGS) -timeout $(SIM_BUDGET) -run '$(SIM_RUN)' $(SIM_PKGS)

# A binary that does not build fails every test of the next two layers, which is what the summary shows.
.PHONY: test-fault
test-fault: $(LAYER) ## fault layer: kill, stop and restart real processes, and break disks, under verified load
	@$(MAKE) --no-print-directory build || true
	@$(LAYER) -name faults -budget $(FAULT_BUDGET) -results $(RESULTS) -- \
	  $(GO) test -json -count=1 -p 1 -tags e2e -run '^TestFault' -timeout $(FAULT_BUDGET) ./scripts/e2e ./scripts/e2e/disks

.PHONY: test-e2e
test-e2e: $(LAYER) ## end to end: libiscsi and QEMU on this host, open-iscsi in a Linux VM
	@$(MAKE) --no-print-directory build || true
	@$(LAYER) -name e2e -budget $(E2E_BUDGET) -results $(RESULTS) -- \
	  env E2E_CONFORMANCE=1 $(GO) test -json -count=1 -tags e2e -skip '^TestFault' -timeout $(E2E_BUDGET) ./scripts/e2e

.PHONY: e2e
e2e: build ## the end-to-end and fault tests with their output (RUN=regexp selects)
	$(GO) test -v -count=1 -tags e2e -timeout 30m -run '$(or $(RUN),.)' ./scripts/e2e

.PHONY: sim
sim: ## the simulations, SIM_COUNT times (20), each with another seed from SIM_SEED on (the clock); RUN=regexp selects
	@seed=$(or $(SIM_SEED),$$(date +%s)); for i in $$(seq $(SIM_COUNT)); do \
	  echo "=== round $$i of $(SIM_COUNT): make sim SIM_COUNT=1 SIM_SEED=$$seed repeats it"; \
	  SIM_SEED=$$seed $(GO) test -v -count=1 -tags $(TAGS) -timeout 10m -run '$(or $(RUN),$(SIM_RUN))' $(SIM_PKGS) || exit 1; \
	  seed=$$((seed + 1000)); done

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (default 30s; RUN=regexp selects)
	bash scripts/fuzz.sh '$(or $(FUZZTIME),30s)' '$(or $(RUN),.)'

.PHONY: conformance
conformance: build ## libiscsi's iscsi-test-cu, each test alone, with a table
	E2E_CONFORMANCE=1 $(GO) test -v -count=1 -tags e2e -timeout 60m -run '^TestConformance$$' ./scripts/e2e

.PHONY: bench
bench: build ## measure against Debian's tgt in the same run (ARGS: see scripts/bench)
	$(GO) run ./scripts/bench $(ARGS)

.PHONY: bench-engine
bench-engine: ## measure the iSCSI engine alone, over memory, beside tgt and gotgt (ARGS: see scripts/bench)
	CGO_ENABLED=0 $(GO) build -o bin/ramtarget ./gateway/ramtarget
	CGO_ENABLED=0 $(GO) build -o bin/gotgt ./scripts/bench/gotgt
	$(GO) run ./scripts/bench -engine -o bin/bench-engine.jsonl $(ARGS)

# ---- quality -----------------------------------------------------------------------------------------

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## golangci-lint over everything, then the repository's own checks
	$(TOOLS)/golangci-lint run ./...
	$(GO) test ./scripts/lint

.PHONY: check
check: $(TOOLS)/golangci-lint ## quick, before a commit: format, vet, lint and unit tests of what changed
	bash scripts/check.sh

# ---- tools -------------------------------------------------------------------------------------------

.PHONY: tools
tools: $(LAYER) $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-go-grpc ## build the pinned tools that the tests need into bin/tools

.PHONY: vm
vm: ## build the end-to-end tests' Linux VM if it is not there (needs root; see scripts/e2e/vm)
	bash scripts/e2e/vm/build.sh

.PHONY: clean
clean: ## remove what was built (bin/); the VM stays in scripts/e2e/cache
	rm -rf bin

.PHONY: $(LAYER)
$(LAYER):
	@$(GO) build -o $@ ./scripts/layer

$(TOOLS)/protoc-gen-go:
	GOBIN=$(TOOLS) $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO_VERSION)
$(TOOLS)/protoc-gen-go-grpc:
	GOBIN=$(TOOLS) $(GO) install google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GEN_GO_GRPC_VERSION)
$(TOOLS)/golangci-lint:
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
