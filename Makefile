# embedtrain: `make help` lists what can be made. Everything is installed into $(VENV) on first use.

PYTHON ?= python3
VENV ?= .venv
# the CPU build where the index has one; TORCH="torch>=2.11" takes the newest
TORCH ?= torch==2.13.0
SIZE ?= quickstart
# where `make table` finds the run's report, and keeps it
RUNS ?= runs
TABLES ?= benchmarks
# another Python, for the parts that need no torch
LIGHT ?= python3.12

PY := $(VENV)/bin/python
# a worker a core, each with one thread; a file's tests stay together, for what they share
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 8 --dist loadfile
PIP := $(PY) -m pip install --quiet --quiet --disable-pip-version-check
CONFIG := configs/$(SIZE).yaml
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
MANIFEST := pyproject.toml constraints.txt

# bytecode is kept: else every process that a test starts compiles the package anew
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help quickstart table test test-all check check-light docs format install install-dev clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: $(INSTALLED) ## train, export and measure a small encoder (SIZE=tiny: the same in minutes)
	@$(PY) -m embedtrain run $(CONFIG)

table: $(INSTALLED) ## the quickstart's table on the full test sets, kept in benchmarks/quickstart/
	@$(PY) -m embedtrain run $(CONFIG) --set stages.report.max_tokens_per_model=null
	@mkdir -p $(TABLES)/$(SIZE)
	@cp $(RUNS)/$(SIZE)/report.json $(RUNS)/$(SIZE)/report.md $(TABLES)/$(SIZE)/

test: $(INSTALLED_DEV) ## run the tests, the tiny quickstart among them
	@$(PYTEST)

test-all: $(INSTALLED_DEV) ## run all tests, the slow ones too
	@$(PYTEST) -m "not gpu"

check: $(INSTALLED_DEV) ## style, types, layers, spelling, sizes, generated docs
	@$(VENV)/bin/ruff check --quiet
	@$(VENV)/bin/ruff format --quiet --check
	@$(PY) -m mypy --no-error-summary
	@$(VENV)/bin/lint-imports --no-cache > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }
	@$(VENV)/bin/typos
	@$(PY) tools/check_sizes.py
	@$(PY) tools/config_docs.py --check
	@echo "check: all good"

check-light: ## on another Python (LIGHT=python3.12): what needs no torch, and every shipped config
	@$(LIGHT) -m venv .venv-light
	@.venv-light/bin/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt \
		filelock jinja2 matplotlib numpy packaging psutil pyarrow pydantic pyyaml rich scipy tokenizers typer
	@PYTHONPATH=. .venv-light/bin/python tools/light_rooms.py

docs: $(INSTALLED_DEV) ## the documentation site, into build/site
	@$(PY) tools/build_site.py

format: $(INSTALLED_DEV) ## put the code in its one style
	@$(VENV)/bin/ruff check --quiet --fix
	@$(VENV)/bin/ruff format --quiet

install: $(INSTALLED) ## only install what a run needs
install-dev: $(INSTALLED_DEV) ## only install what tests and tools need

$(PY):
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "embedtrain needs Python 3.11 or later")'
	@$(PYTHON) -m venv $(VENV)

$(INSTALLED): $(MANIFEST) | $(PY)
	@echo "installing embedtrain into $(VENV) (once; torch is the largest part)"
	@$(PIP) "$(TORCH)"
	@$(PIP) --constraint constraints.txt --editable .
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	@echo "installing what tests and tools need"
	@$(PIP) --constraint constraints.txt --editable ".[dev]"
	@touch $@

clean: ## remove what was built; runs/ and the environment stay
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
