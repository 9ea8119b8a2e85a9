# The front door of Nimbus. Every target works alone and may be repeated; `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# What the portal is built from; its own output and packages are not among it.
PORTAL_SOURCES := $(shell find web/portal -type f -not -path '*/node_modules/*' -not -path '*/dist/*' 2>/dev/null)

# What the init of the sandboxes is built from.
GUEST_SOURCES := $(shell find shared/guest/src shared/guest/Cargo.toml shared/guest/build.rs -type f) Cargo.lock

# What the workers of GPU boxes are built from.
GX10_SOURCES := $(shell find services/gx10-worker/src services/gx10-worker/Cargo.toml shared/gpu-wire/src -type f) Cargo.lock

NATS   := target/stamps/nats
GUEST  := target/stamps/guest
GX10   := target/stamps/gx10
NPM    := target/stamps/npm
PORTAL := target/stamps/portal
DEBUG  := target/debug/nimbus
NIMBUS := target/release/nimbus

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: demo
demo: tools $(DEBUG) ## sign up, provision a VM on a simulated cluster, run sandboxes; ONCE=1 ends after that
	@if ops/dev/engine.sh start && ops/dev/engine.sh images; then export NIMBUS_DEMO_IMAGE=nimbus.test/busybox:1; fi; \
	$(DEBUG) dev --demo $(if $(filter-out 0,$(ONCE)),--once) $(if $(PORT),--port $(PORT))

.PHONY: dev
dev: tools $(DEBUG) ## run a server with a simulated cluster on 127.0.0.1:8080
	@$(DEBUG) dev

.PHONY: test
test: tools-test engine $(GX10) $(DEBUG) $(NPM) ## everything that can be checked here: formats, lints, all suites
	@ops/dev/test.sh

.PHONY: test-rust test-portal test-python test-pve test-api test-clients test-e2e test-ops test-compose
test-rust test-portal test-python test-pve test-api test-clients test-e2e test-ops test-compose: tools-test engine $(GX10) $(DEBUG) $(NPM) ## one part of `make test`
	@ops/dev/test.sh $(@:test-%=%)

.PHONY: bench
bench: tools $(NIMBUS) ## measure the budgets, ours and raw in one run
	@cargo run --quiet --release -p nimbus-tests --bin bench

.PHONY: build
build: tools $(NIMBUS) ## the release binary at target/release/nimbus

.PHONY: compose-test
compose-test: test-compose ## compose.yaml on this machine's engine: kill each container, restart all, restore a backup

# PROFILE=debug makes it of target/debug/nimbus, without the debug information.
.PHONY: image
image: tools $(if $(filter debug,$(PROFILE)),$(DEBUG),$(NIMBUS)) ## the OCI image at target/image/nimbus.tar, given to the engine as nimbus:VERSION if one answers; PROFILE=debug
	@ops/image/build.py nimbus --binary target/$(or $(PROFILE),release)/nimbus --out target/image --strip \
	    $(if $(shell docker info >/dev/null 2>&1 && echo yes),--load)
	@if [ -x target/gx10/gx10-worker ]; then ops/image/build.py gx10-worker --binary target/gx10/gx10-worker --out target/image; fi

# BINARY=FILE releases a program that is there already.
.PHONY: release
release: tools-release $(if $(BINARY),,$(PORTAL)) ## a signed release for quickinstall.sh; KEY=FILE is minisign's secret key [OUT=FOLDER] [URL=https://…] [ALL=1]
	@ops/release/release.py --key "$(or $(KEY),$(error make release KEY=FILE: the secret key of minisign))" $(if $(OUT),--out "$(OUT)") \
	    $(if $(BINARY),--binary "$(BINARY)") $(if $(URL),--url "$(URL)") $(if $(filter-out 0,$(ALL)),--all)

.PHONY: gx10-worker
gx10-worker: tools $(GX10) ## the static worker of GPU boxes, for this machine and for arm64 where that can be built

.PHONY: generate
generate: tools $(NATS) ## write the checked-in files that are made from code
	NIMBUS_GENERATE=1 cargo test --quiet --workspace --lib --bins -- checked_in
	@if [ -f proto/openapi.json ]; then $(MAKE) $(NPM) && npm --prefix web run generate -w portal; fi

.PHONY: quadlet
quadlet: $(DEBUG) ## write the units of quadlet/ from compose.yaml
	@ops/compose/quadlet.sh

.PHONY: fmt
fmt: ## format the Rust sources
	cargo fmt --all

.PHONY: lint
lint: $(NATS) ## formats and lints only
	@ops/dev/test.sh fmt lint deny

.PHONY: portal
portal: tools $(PORTAL) ## build the portal into web/portal/dist

.PHONY: clean-test
clean-test: ## stop the private PostgreSQL of the tests and remove what they left
	@ops/dev/test.sh clean
	rm -rf tests/output target/venv

.PHONY: engine images
engine: tools ## make a container engine answer (Docker or Podman), with the images of the tests
	@ops/dev/engine.sh start
	@ops/dev/engine.sh images busybox node python
images: engine ## make also the image with a browser (a few minutes, about 1 GB)
	@ops/dev/engine.sh images desktop

.PHONY: tools tools-release tools-test
tools:
	@ops/dev/install.sh build
tools-release:
	@ops/dev/install.sh release
tools-test:
	@ops/dev/install.sh test
	@ops/dev/venv.sh

$(NATS): ops/dev/nats.sh
	@ops/dev/nats.sh
	@mkdir -p $(@D) && touch $@

$(GUEST): ops/dev/guest.sh $(GUEST_SOURCES)
	@ops/dev/guest.sh
	@mkdir -p $(@D) && touch $@

# Before the binary that carries it; `make demo` and `make dev` do without.
$(GX10): ops/dev/gx10.sh $(GX10_SOURCES)
	@ops/dev/gx10.sh
	@mkdir -p $(@D) && touch $@

$(NPM): web/package-lock.json web/package.json $(wildcard web/*/package.json)
	cd web && npm ci --no-audit --no-fund --loglevel=error
	@mkdir -p $(@D) && touch $@

$(PORTAL): $(NPM) $(PORTAL_SOURCES)
	npm --prefix web run build
	@mkdir -p $(@D) && touch $@

# What goes into the program. npm's part and cargo's side by side: alone, each waits for the network or leaves cores idle.
.PHONY: parts
parts: $(NATS) $(PORTAL) $(GUEST)

# cargo knows best what is out of date.
.PHONY: $(DEBUG) $(NIMBUS)
$(DEBUG):
	@$(MAKE) -j2 parts
	cargo build -p nimbus
$(NIMBUS): $(GX10)
	@$(MAKE) -j2 parts
	cargo build --release -p nimbus
