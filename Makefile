.DEFAULT_GOAL := help
.PHONY: help setup smoke test check lint test-slow bench docs lock

# With PYTHONDONTWRITEBYTECODE set, every process would compile all its imports anew: twice the start-up.
unexport PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PYTHON ?= python3
BIN := .venv/bin
LOCK := requirements$(if $(CUDA),-cuda).lock
INSTALLED := .venv/.installed-from-$(LOCK)
# One test file stays in one process, so that its tests share what they compiled; tests/conftest.py says which start
# first. One process more than cores: tests of launchers mostly wait.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder
EVERYDAY := -m "not slow"
FAST := -m "not slow and not slurm and not postgres" --ignore=tests/samplers

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(INSTALLED)  ## install into .venv, exactly as locked (make setup CUDA=1: with jax for NVIDIA GPUs)

$(INSTALLED): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: needs Python 3.11 or later, got $$($(PYTHON) --version); set PYTHON=..."; exit 1; }
	@# Debian ships venv apart from Python.
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || [ "$$(id -u)" != 0 ] || { apt-get update -qq && apt-get install -y -qq python3-venv; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

smoke: setup  ## set up, run the main job small, print its table (4 minutes on 2 cores)
	$(BIN)/python -m lambda_hat.sample -m model=small data=digits posterior=local sampler=hmc,sgld,vi budget=quick budget.seconds=60
	$(BIN)/python -m lambda_hat.sample -m model=deep_linear sampler=hmc,mclmc budget=quick
	$(BIN)/lambda-hat report --all -o runs/report.html

test: lint  ## lint, types, and every test but the slow ones; says where the time went
	$(PYTEST) $(EVERYDAY)

check: lint  ## before each commit: lint, types and the fast tests (under 5 minutes)
	$(PYTEST) $(FAST)

lint: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/basedpyright

test-slow: setup  ## the tests that need minutes each
	$(PYTEST) --dist worksteal -m slow --timeout 3600

# Each also by itself: .venv/bin/python -m benchmarks.<part>
BENCH := startup elements tiny_runs checkpoints memory choices speed own_cost cores growth peer_rate peer_process peer_mcse report launching

bench: setup  ## run the benchmarks (an hour; launching on a SLURM of its own), also those after one that missed its goal
	@missed=; for part in $(BENCH); do $(BIN)/python -m benchmarks.$$part || missed="$$missed $$part"; done; \
		test -z "$$missed" || { echo "make: exit code not 0:$$missed"; exit 1; }

docs: setup  ## write docs/configuration.md from the schema
	$(BIN)/python docs/write_configuration.py

lock:  ## resolve the dependencies again and write both locks
	$(PYTHON) -m venv .cache/lock && .cache/lock/bin/python -m pip install --quiet uv
	$(call resolve) -o requirements.lock
	$(call resolve) --extra cuda -o requirements-cuda.lock

# No header and no index, so that no registry's address gets into a lock.
resolve = .cache/lock/bin/uv pip compile pyproject.toml --quiet --upgrade --group dev --extra postgres --universal \
	--fork-strategy fewest --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links
