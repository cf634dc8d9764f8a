# From a bare clone with make and Python >= 3.11: `make demo` runs the shipped study, `make test` all quick checks.
# Both set everything up first (a virtual environment in .venv with the exact versions of constraints.txt).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
# the pins of torch and setuptools, installed before anything that depends on them
FIRST = $$(grep -E '^(torch|setuptools)==' constraints.txt)
# two processes of one torch thread each: oversubscribed torch is 10 to 20 times slower
WORKERS ?= 2

export HF_HUB_OFFLINE := 1
export HF_DATASETS_OFFLINE := 1
export TRANSFORMERS_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
export TOKENIZERS_PARALLELISM := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo slurm-demo test lint format slow build clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    run experiments/pocket_quick.yaml and print its table"
	@echo "make slurm-demo  the same on a SLURM cluster of virtual nodes (root, Debian; SLURM_UP names the script that starts it)"
	@echo "make test    linters, types, import floors and the quick tests"
	@echo "make slow    the slow tests"
	@echo "make lint    linters, types and import floors only"
	@echo "make format  rewrite the sources in the project's style"
	@echo "make build   build the wheel into dist/"
	@echo "make clean   remove caches and build outputs (the store and .venv stay)"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "ablate needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -1)."; \
		echo "Name another one: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(FIRST)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	@start=$$(date +%s); \
	$(BIN)/ablate run experiments/pocket_quick.yaml && $(BIN)/ablate report pocket-quick && \
	echo "make demo: $$(( $$(date +%s) - start )) s"

# a script that starts a SLURM cluster of virtual nodes on this machine, and is content when one answers
SLURM_UP ?= ../shared/tools/slurm_up.sh

slurm-demo: $(STAMP)
	@sinfo --noheader >/dev/null 2>&1 || { test -x $(SLURM_UP) && $(SLURM_UP); } || { \
		echo "no SLURM controller answers here; name a script that starts one: make slurm-demo SLURM_UP=..."; exit 1; }
	@start=$$(date +%s); \
	$(BIN)/ablate run experiments/pocket_quick.yaml --on slurm/pocket.yaml && \
	{ $(BIN)/ablate status pocket-quick --watch --exit-code || $(BIN)/ablate status pocket-quick; } && \
	$(BIN)/ablate report pocket-quick && echo "make slurm-demo: $$(( $$(date +%s) - start )) s"

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

build: $(STAMP)
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean:
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	find ablate tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
