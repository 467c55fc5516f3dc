# Thin names for the commands behind them. `make setup`, `make test` and `make bench` get what a machine lacks, and say what and why;
# `make run` needs Rust, Python 3 and Perl and installs nothing.

.PHONY: help run setup test fuzz bench

help:
	@echo 'make run      build Gatepost and run it on 127.0.0.1:2525, with the chain of plugin-examples/gatepost.toml'
	@echo 'make test     run every test in every language'
	@echo 'make fuzz     run the fuzz targets half an hour each, and keep what they find on the way; SECONDS_EACH=60 for a minute'
	@echo 'make bench    measure it against its peers, and write docs/performance.md; QUICK=1 for a short run'
	@echo 'make setup    install what tests need beside Rust, Python 3 and Perl; make bench installs its peers itself'

run:
	cargo build --release -p gatepost -p gatepost-plugin-examples --bins
	target/release/gatepost run -c plugin-examples/gatepost.toml

setup:
	@tests/scripts/setup

test: setup
	@tests/scripts/test

# Needs a nightly toolchain.
SECONDS_EACH ?= 1800
fuzz:
	@tests/scripts/fuzz $(SECONDS_EACH) keep

# On the disk rather than in memory, where the system's folder for temporary files may be; not below here, where Postfix's own users may not get in.
bench: setup
	@tests/scripts/setup-bench
	cargo build --release --workspace --bins
	GATEPOST_BUILT=1 TMPDIR=/var/tmp PATH="$(CURDIR)/.venv/bin:$$PATH" target/release/bench $(if $(QUICK),--quick,--write docs/performance.md)
