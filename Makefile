# `make demo` and `make test` are the only two commands a newcomer needs; each sets the machine up first.
#
#   PYTHON=python3.12     make the virtual environment with another Python
#   DEVICE=cpu, =cuda     install these builds, whatever nvidia-smi says
#   TORCH_INDEX=URL       take torch from a package index of your choice, such as one with the CPU-only wheels
#   ARGS='tests/data -x'  what `make test` hands to pytest, and `make mutants` to the mutation run
#   ARGS='-n 0'           all tests in one process, instead of one on each core

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs mutants gpu chaos clean

PYTHON ?= python3
DEVICE ?= $(shell nvidia-smi -L 2>/dev/null | grep -q '^GPU' && echo cuda || echo cpu)
TORCH_INDEX ?=
ARGS ?=

VENV := .venv
PIP := $(VENV)/bin/python -m pip install --no-warn-conflicts --constraint constraints.txt
# DeepSpeed finds ninja by PATH.
IN_VENV := export PATH="$(CURDIR)/$(VENV)/bin:$$PATH";
# A changed pin, Python or kind of machine asks for another stamp, and so for a new set-up.
KEY := $(shell { cat Makefile setup.py kernels/pyproject.toml constraints.txt; $(PYTHON) --version || true; echo $(DEVICE) $(TORCH_INDEX); } 2>&1 \
	| sha256sum | cut -c 1-16)
STAMP := $(VENV)/set-up-$(KEY)

help:  ## show this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP)  ## virtual environment, pinned packages, this project; does nothing the second time

$(STAMP):
	@command -v $(PYTHON) > /dev/null || { echo "error: no $(PYTHON) here:" \
		"install Python 3.10 or newer, or name one, as in \`make setup PYTHON=python3.11\`" >&2; exit 1; }
	@$(PYTHON) tools/preflight.py $(DEVICE)
	@echo "setting up $(VENV) for $(DEVICE), with $$($(PYTHON) --version)"
	@[ "$$($(VENV)/bin/python --version 2>&1)" = "$$($(PYTHON) --version)" ] || $(PYTHON) -m venv --clear $(VENV)
	@rm -f $(VENV)/set-up-*
	$(PIP) --quiet 'pip>=23.1'
ifneq ($(TORCH_INDEX),)
	$(PIP) --no-deps --index-url $(TORCH_INDEX) torch
endif
	DS_BUILD_OPS=0 $(PIP) --editable ./kernels --editable '.[$(DEVICE),test]'
	$(PIP) --no-deps torchrec
	@$(IN_VENV) unigrf doctor
	@touch $@

demo: runs/demo/report.html  ## make data, train on 2 ranks, evaluate, write a report, recommend
	@$(IN_VENV) unigrf recommend --run runs/demo --user 1 --user 2 --user 3 --k 5
	@echo "the demo's data: data/demo; its run: runs/demo; look at $<"

data/demo/manifest.json: | $(STAMP)
	@$(IN_VENV) unigrf synthesize --out data/demo --users 8000 --items 500 --overwrite

# An interrupted run goes on; one that was interrupted before its first checkpoint, or that a changed configuration
# has made stale, starts again.
runs/demo/metrics.json: data/demo/manifest.json configs/demo.yaml | $(STAMP)
	@[ -e runs/demo/checkpoints/latest ] && [ ! -e $@ ] || rm -rf runs/demo
	@$(IN_VENV) unigrf train --config configs/demo.yaml --run runs/demo --ranks 2 \
		$$([ -d runs/demo ] && echo --resume)
	@$(IN_VENV) unigrf evaluate --run runs/demo --split test --ranks 2

runs/demo/report.html: runs/demo/metrics.json
	@$(IN_VENV) unigrf report --run runs/demo

test: lint  ## lint and all tests
	@$(IN_VENV) pytest -n auto --dist worksteal $(ARGS)

lint: setup  ## style, types, imports, shell scripts
	@$(IN_VENV) ruff check .
	@$(IN_VENV) ruff format --check .
	@$(IN_VENV) mypy
	@$(IN_VENV) lint-imports --no-logo --no-cache
	@$(IN_VENV) shellcheck --external-sources launchers/*.sh launchers/*.sbatch .ci/run

docs: setup  ## the page of all configuration keys, from the schema
	@$(IN_VENV) unigrf config reference --out docs/configuration.md

mutants: setup  ## mutation run: which small mistakes do the tests not notice?
	@$(IN_VENV) python -m tools.mutants $(ARGS)

gpu: setup  ## first session on a GPU, under nine minutes: tests, sanitizer, benchmark, profiled training
	@$(IN_VENV) python -m tools.gpu $(ARGS)

chaos: setup  ## faults on purpose, for hours: docs/reliability.md
	@$(IN_VENV) unigrf chaos --out runs/chaos --rounds 20 --soak 20000 $(ARGS)

clean:  ## remove what the other targets made
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .hypothesis data/demo runs/demo
