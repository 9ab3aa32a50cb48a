# Needs Python 3.11 or newer with venv; everything else goes into .venv, nothing outside it.
PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin
READY := $(VENV)/.ready
# An independent implementation of losses that tests compare with (MIT). Its losses need torch
# alone; what else it asks for (hydra, pytorch-lightning) costs pip a search of minutes. Releases
# before 1.6 ask a server for their latest version when imported.
LIGHTLY := lightly>=1.6

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test test-quick lint docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

install: $(READY) ## make .venv with everything (once; again when pyproject.toml changes)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		seen=$$($(PYTHON) --version 2>/dev/null || echo not installed); \
		echo "EdgeSSL needs Python 3.11 or newer; '$(PYTHON)' is $$seen." >&2; \
		echo "Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot make virtual environments: venv or ensurepip is missing." >&2; \
		echo "On Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@echo "Installing EdgeSSL with every extra into $(VENV) (several GB, some minutes, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all,dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps '$(LIGHTLY)'
	@touch $@

demo: $(READY) ## unlabeled digits to a small measured model with a report
	@out=runs/demo-$$(date -u +%Y%m%dT%H%M%SZ); \
	$(BIN)/edgessl run quickstart --out "$$out"; code=$$?; \
	[ ! -f "$$out/report.html" ] || echo "Report: $$out/report.html"; exit $$code

# two workers, so one thread each unless the caller says otherwise
test: $(READY) ## all tests, two files at a time; PYTEST_ARGS="-k onnx" adds options
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q -n 2 --dist loadfile \
		$(PYTEST_ARGS)

test-quick: $(READY) ## the fast tests, two at a time
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q -n 2 \
		-m "not slow and not chain and not export" $(PYTEST_ARGS)

# pyright cannot follow the folder mapping of an editable install, so it reads a staged copy
lint: $(READY) ## format, style and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check --quiet .
	@rm -rf build
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation --target build/typecheck .
	@$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(READY) ## the documentation as HTML in build/docs, every warning an error; no network
	@$(BIN)/python -m sphinx -E -W --keep-going -n -q -b html -d build/docs-trees docs build/docs
	@echo "Documentation: build/docs/index.html"

clean: ## remove .venv, build files and caches; runs/ stays
	@rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
	@find edgessl exporters devices recipes tests benchmarks -name __pycache__ -type d \
		-prune -exec rm -rf {} +
