# Two commands do everything on a machine with Python >= 3.10 and make: `make demo` and `make test`.
PYTHON ?= python3
# Which torch build: TORCH_INDEX=<index URL from PyTorch's install page> picks a CPU-only or a CUDA one.
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help install demo test test-full lint format docs bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "sparsetrain needs Python 3.10 or newer; choose one with: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "Python's venv module is missing; install it (Debian, Ubuntu: apt install python3-venv) and run make again."; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt setup.py $(wildcard csrc/*.* csrc/levels/*.*) | $(BIN)/python
	$(PIP) install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/.installed  ## make .venv and install sparsetrain with its tools

demo: install  ## train a 90 % sparse network on the embedded digits, about a minute on a CPU
	$(BIN)/sparsetrain train --config recipes/demo.yaml

test: install  ## the tests, under 8 minutes, no network
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-full: install  ## every test, slow ones too, under 60 minutes
	$(BIN)/python -m pytest

lint: install  ## ruff and pyright
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright

format: install  ## let ruff write the format
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

docs: install  ## the documentation into site/, strictly; look at it with python -m http.server -d site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: install  ## the regulariser against the sort-based formula
	$(BIN)/python benchmarks/regularizer.py

clean:  ## remove what make has made
	rm -rf $(VENV) build dist site src/*.egg-info src/sparsetrain/kernels/_native.so .pytest_cache .ruff_cache .hypothesis
