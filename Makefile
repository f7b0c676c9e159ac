# posbench from the command line. `make` alone prints this help; every target but help and clean
# first installs what it needs into .venv, once.
#
#   PYTHON=python3.12     the interpreter that makes .venv: 3.11, 3.12 or 3.13
#   TORCH_INDEX=URL       a further package index for torch. Without a GPU, PyTorch's CPU index
#                         https://download.pytorch.org/whl/cpu saves gigabytes of CUDA packages
#   ARGS="..."            passed on: make sweep ARGS="'grid.scheme=[rope,alibi]' train.seq_len=128"

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help install demo sweep figures report benchmark test test-slow smoke soak check docs gpu-check clean

PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=
BIN := .venv/bin

help: ## show this help
	@sed -n '/^#  /s/^# //p' Makefile
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' Makefile

install: .venv/.ready ## create .venv from pyproject.toml and requirements-lock.txt

demo: .venv/.ready ## train, evaluate and draw on two CPU cores, in minutes, without a download
	$(BIN)/posbench sweep experiment=demo $(ARGS)

sweep: .venv/.ready ## run the whole extrapolation experiment; a second call continues where the first stopped
	$(BIN)/posbench sweep experiment=extrapolation $(ARGS)

figures: .venv/.ready ## redraw every figure and table from the rows, without torch
	$(BIN)/posbench figures $(ARGS)

report: .venv/.ready ## write results/report.html, the results as one page for the browser, without torch
	$(BIN)/posbench report $(ARGS)

benchmark: .venv/.ready ## time posbench beside other implementations and its own goals; fails if it is too slow
	$(BIN)/posbench benchmark $(ARGS)

test: .venv/.ready ## run all tests except those marked slow, one process for each core, at most 8
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal -m 'not slow' $(ARGS)

# One process more than cores, up to 8: many of these tests wait for processes that they have started.
test-slow: .venv/.ready ## run the slow tests, which make test leaves out
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $$(n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 8 ? n + 1 : 8))) --dist worksteal -m slow $(ARGS)

smoke: .venv/.ready ## run a subset of the tests that touches every layer, in a minute
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal -m smoke $(ARGS)

soak: .venv/.ready ## kill sweeps at random moments for ARGS="--minutes 20" and compare their rows
	OMP_NUM_THREADS=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python scripts/soak.py $(ARGS)

check: .venv/.ready ## check format, lint, types and import layers
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: .venv/.ready ## build the documentation into build/docs, without a network; warnings are errors
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -W --keep-going -c docs/site . build/docs
	@echo "open build/docs/index.html"

gpu-check: .venv/.ready ## on a GPU: every scheme against the specification, a report, tests that need one
	$(BIN)/posbench gpu-check --max-minutes 5 $(ARGS); checked=$$?; \
		$(BIN)/python -m pytest -m gpu -rs; status=$$?; [ $$status -eq 5 ] && status=0; \
		exit $$(( checked > status ? checked : status ))

clean: ## remove .venv and everything cached; results/ stays
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A .venv that is whole and of a Python that posbench supports is kept, whatever PYTHON says.
SUPPORTED := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
VENV_IS_WHOLE := { $(BIN)/python $(SUPPORTED) && $(BIN)/python -m pip --version; } >/dev/null 2>&1

.venv/.ready: pyproject.toml setup.py requirements-lock.txt
	@$(VENV_IS_WHOLE) || $(PYTHON) $(SUPPORTED) 2>/dev/null || { \
		echo "PYTHON=$(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo not there): posbench needs Python" \
			"3.11 to 3.13; name one, such as make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "Installing into .venv: two minutes and 2 GB, more with CUDA"
	@rm -f $@
	@$(VENV_IS_WHOLE) || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c requirements-lock.txt -e '.[dev]'
	@touch $@
