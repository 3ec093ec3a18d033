# Needs python3 (3.11 or newer) and make; everything else is installed here, pinned, into environments in this folder.
PYTHON ?= python3
ARGS ?=
PYTEST_FLAGS := -n auto --maxprocesses 8 --dist worksteal -q
# A worker per core is the parallelism; BLAS threads inside each would only fight over the same cores.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: help install demo test lint check oracle applications real edge bench peers lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo     compile a real trained model to both targets, verify it and time it"
	@echo "make test     the default test suite; ARGS='-k padding' narrows it"
	@echo "make lint     ruff, pyright, import-linter"
	@echo "make check    lint and test"
	@echo "make oracle   the tests against real Keras, in an environment of their own"
	@echo "make applications  all architectures of keras.applications, for both targets; an hour, 10 GB"
	@echo "make real     the tests on real trained models, fetched once into \$$KCOMPILE_CACHE or ~/.cache/kcompile/real"
	@echo "make edge     build C libraries for other machines and run them there, emulated; installs emulators with apt-get"
	@echo "make bench    every figure that the README quotes"
	@echo "make clean    remove environments, caches and build outputs"

# $(call environment,FOLDER,LOCK FILE): a virtual environment with what the lock file pins, and kcompile itself, editable.
define environment
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "kcompile needs Python 3.11 or newer. Received: $$($(PYTHON) --version 2>&1). Set PYTHON=, as in: make PYTHON=python3.12" >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	{ echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
@echo "setting up $(1) from $(2)"
@$(PYTHON) -m venv $(1)
@$(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(2)
endef

install: .venv/.ready

.venv/.ready: requirements/dev.txt pyproject.toml
	$(call environment,.venv,requirements/dev.txt)
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

.venv-oracle/.ready: requirements/oracle.txt pyproject.toml
	$(call environment,.venv-oracle,requirements/oracle.txt)
	@.venv-oracle/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

.venv-peers/.ready: requirements/peers.txt
	$(call environment,.venv-peers,requirements/peers.txt)
	@touch $@

.venv/.ready-benchmarks: .venv/.ready requirements/benchmarks.txt
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/benchmarks.txt
	@touch $@

demo: .venv/.ready
	@.venv/bin/python examples/demo.py

test: .venv/.ready
	.venv/bin/python -m pytest $(PYTEST_FLAGS) $(ARGS)

lint: .venv/.ready
	.venv/bin/ruff check .
	.venv/bin/pyright
	.venv/bin/pyright --project tests
	.venv/bin/lint-imports

check: lint test

oracle: .venv-oracle/.ready
	KERAS_BACKEND=jax .venv-oracle/bin/python -m pytest $(PYTEST_FLAGS) -m "oracle and not slow" $(ARGS)

applications: .venv-oracle/.ready
	KERAS_BACKEND=jax .venv-oracle/bin/python -m pytest -q -m "oracle and slow" $(ARGS)

real: .venv/.ready
	.venv/bin/python -m tests.real.fetch_models
	.venv/bin/python -m pytest $(PYTEST_FLAGS) -m real $(ARGS)

# Emulators and compilers of other machines come from the distribution, and are installed only if one is missing.
EDGE_TOOLS := qemu-aarch64 qemu-arm qemu-riscv64 qemu-system-arm arm-none-eabi-gcc gcc make rustc
EDGE_PACKAGES := qemu-user qemu-system-arm gcc-arm-none-eabi libnewlib-arm-none-eabi gcc libc6-dev make rustc
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)
edge: .venv/.ready
	@for tool in $(EDGE_TOOLS); do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	if [ -n "$$missing" ]; then \
		echo "installing$$missing"; \
		$(SUDO) apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get -qq install -y --no-install-recommends $(EDGE_PACKAGES) >/dev/null; \
	fi
	.venv/bin/python -m pytest $(PYTEST_FLAGS) -m edge $(ARGS)

peers: .venv-peers/.ready

bench: .venv/.ready-benchmarks .venv-peers/.ready
	.venv/bin/python -m benchmarks $(ARGS)

# Needs uv. The lock files name packages, versions and hashes; where they come from is pip's configuration.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock"
lock:
	$(LOCK) --all-extras --group dev pyproject.toml -o requirements/dev.txt
	$(LOCK) --all-extras --group test --group oracle -c requirements/dev.txt pyproject.toml -o requirements/oracle.txt
	$(LOCK) --all-extras --group dev --group benchmarks -c requirements/dev.txt pyproject.toml -o requirements/benchmarks.txt
	$(LOCK) --group pyproject.toml:peers -o requirements/peers.txt

clean:
	rm -rf .venv .venv-oracle .venv-peers build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
