# What a developer and CI run. `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Only for `make bench`: the scenario to run; empty lists them.
SCENARIO ?=

# Only for `make unit`: the crate, without `ackline-`.
CRATE ?=

TOOLS := $${ACKLINE_TOOLS_DIR:-.tools}/bin
NEXTEST := $(TOOLS)/cargo-nextest nextest run --locked $(if $(CI),--profile ci)
CARGO_MISSING := cargo is missing: install Rust 1.95 or newer (https://rustup.rs), then run this again.

.PHONY: help run demo check unit test lint fmt tools bench clean cargo programs developer release

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Running, checking and testing share one build, made to be made again soon; what is measured is built by `release`.
run: cargo ## build and start everything on this machine, play one conversation, stay up until Ctrl-C
	@deploy/dev/tools.sh nats
	@$(MAKE) --no-print-directory programs
	@exec target/debug/ackline-dev run

demo: cargo ## the same without a terminal: play every situation, check each outcome; last line is JSON
	@deploy/dev/tools.sh nats
	@$(MAKE) --no-print-directory programs
	@exec target/debug/ackline-dev demo

check: cargo ## while you work: format, lints, and the tests that start none of our programs
	@deploy/dev/tools.sh lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	MODEL_HISTORIES=$${MODEL_HISTORIES:-200} $(NEXTEST) --workspace --lib --bins

unit: cargo ## the same tests of one crate: make unit CRATE=shared
	@test -n "$(CRATE)" || { echo "say which crate: make unit CRATE=shared" >&2; exit 2; }
	@deploy/dev/tools.sh lint
	$(NEXTEST) -p ackline-$(CRATE) --lib

# Everything is built before the first test: tests start the real binaries.
test: cargo ## install what the tests need and run all of them
	@deploy/dev/tools.sh nats test lint
	cargo build --workspace --all-targets --locked
	$(NEXTEST) --workspace

# The advisory database is a separate download that not every network reaches: `cargo deny check
# advisories` is left to whoever can.
lint: cargo ## check format, lints, dependencies and scripts
	@deploy/dev/tools.sh lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(TOOLS)/cargo-deny --locked check bans licenses sources
	$(TOOLS)/cargo-shear
	$(TOOLS)/shellcheck deploy/dev/*.sh deploy/dev/counterparts/*.sh .ci/run

fmt: cargo ## format the code
	cargo fmt --all

tools: ## install every pinned tool into .tools/
	@deploy/dev/tools.sh nats test lint

bench: cargo ## run one scenario (SCENARIO=name); without a name, list them
	@deploy/dev/tools.sh nats $(if $(filter peers,$(SCENARIO)),bench)
	@$(MAKE) --no-print-directory $(if $(filter house,$(SCENARIO)),developer,release)
	@exec target/$(if $(filter house,$(SCENARIO)),debug,release)/ackline-dev bench $(SCENARIO)

clean: cargo ## remove what was built and the data of `make run`; .tools/ stays
	cargo clean
	rm -rf .run

cargo:
	@command -v cargo >/dev/null || { echo "$(CARGO_MISSING)" >&2; exit 1; }

programs:
	cargo build --workspace --bins --locked

# `house` measures the source: it needs no servers.
developer:
	cargo build --package ackline-bench --bin ackline-dev --locked

release:
	cargo build --release --workspace --bins --locked

.PHONY: hooks
hooks: ## check format and lints of changed crates before each commit
	git config core.hooksPath deploy/dev
