# Everything a person does with this tree. `make help` lists it.
#
# Cargo decides by itself what is out of date, so no target here names a file. Cargo calls take the whole workspace: then cargo
# resolves features once, and what one target compiled the next one finds. What is seen at work or measured is built without the
# simulation, whose feature of cessfs-sync would be in the programs, too.

AS_SHIPPED := --workspace --exclude cessfs-simulation --bins
TARGET ?= $(or $(CARGO_TARGET_DIR),target)
DEBUG := $(abspath $(TARGET))/debug
RELEASE := $(abspath $(TARGET))/release

.DEFAULT_GOAL := help
.PHONY: help run demo test soak simulate nightly check bench bench-peers fuzz deb

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build everything and see it work: a CESS network, a volume, a mount; Ctrl-C ends it
	@scripts/setup
	cargo build $(AS_SHIPPED)
	$(DEBUG)/cessfs-demo

demo: ## the same, and it ends by itself
	@scripts/setup
	cargo build $(AS_SHIPPED)
	$(DEBUG)/cessfs-demo --once

test: ## every test there is, as CI runs them (real mounts need root and /dev/fuse)
	@scripts/setup --test
	scripts/test

simulate: ## fresh seeds of the simulation, for MINUTES=5; or one of them, SEED=N
	@scripts/setup
	cargo build --workspace --bins
	$(DEBUG)/cessfs-simulate $(if $(SEED),--seed $(SEED),--minutes $(or $(MINUTES),5))

soak: ## fresh seeds for MINUTES=60 minutes: power cuts, kills, damage; counts what was tried and lost
	@scripts/setup --test
	scripts/soak $(or $(MINUTES),60)

nightly: ## what takes too long for every day: ten thousand cases of each model, a million operations of fsx in each mode (hours)
	@scripts/setup --test
	scripts/nightly

check: ## what must be clean before a commit: format, lints, unit tests, docs, licences
	@scripts/setup --check
	scripts/check

bench: ## how fast: the parts, the mount beside the disk, the pipeline; BASELINE=DIR compares
	@scripts/setup --test
	cargo build --release $(AS_SHIPPED)
	PATH="$(RELEASE):$$PATH" bench/run.sh
	PATH="$(RELEASE):$$PATH" CESSFS_BIN_DIR="$(RELEASE)" bench/scale

bench-peers: ## the same workloads on other encrypted filesystems installed here
	@scripts/setup --test
	cargo build --release $(AS_SHIPPED)
	PATH="$(RELEASE):$$PATH" bench/peers
	@if command -v tahoe >/dev/null; then bench/tahoe; else echo "tahoe is not installed: left out (pip install tahoe-lafs)"; fi

fuzz: ## look for inputs that break a decoder, for MINUTES=5
	@scripts/setup --fuzz
	scripts/fuzz $(or $(MINUTES),5)

deb: ## Debian packages, in target/debian
	@scripts/setup
	cargo build --release -p cessfs -p cessfs-mount-helper
	cargo build --workspace --bins
	CESSFS_BIN_DIR="$(RELEASE)" CESSFS_DEVNET_DIR="$(DEBUG)" packaging/deb.sh "$(abspath $(TARGET))/debian"
