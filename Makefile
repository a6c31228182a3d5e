# Thin: each target is a line or two that README explains. `make help` lists them.

# The demo: how many cases, how many simulated instances, how many edits a second, for how long.
CASES ?= 20000
INSTANCES ?= 2
EDITS ?= 5
FOR ?= 60s

# The soak: for how many minutes everything breaks that can, and the seed of an earlier soak to repeat it.
MINUTES ?= 10
SEED ?=

# How many random histories each property test of the soak tries.
HISTORIES ?= 5000

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench soak lint

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(firstword $(MAKEFILE_LIST)) | expand -t 8

setup: ## install what building and testing need; the others do it themselves
	@tools/setup

demo: setup ## simulated Primeros, a private Postgres, and the river between them
	cargo run --release --locked -- demo --cases $(CASES) --instances $(INSTANCES) --edits-per-second $(EDITS) --for $(FOR)

test: setup ## all tests, against a real Postgres of their own
	cargo test --locked

bench: setup ## first load, one change, ten thousand changes, restart
	cargo bench --locked --bench river

soak: setup ## everything that can break, for MINUTES; then all tests, the long ones too, with many more histories
	TONLE_SOAK_MINUTES=$(MINUTES) TONLE_TEST_SEED=$(SEED) cargo test --locked --test tonle-tests -- --ignored --nocapture crash::soak
	PROPTEST_CASES=$(HISTORIES) cargo test --locked -- --include-ignored --skip crash::soak --skip golden_files_are_written --skip the_corpus_is_written

lint: setup ## format, lints, documentation, dependencies
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked
	@tools/check-fuzz
	@tools/check-dependencies
