# make            says what can be made
# Everything is installed into .venv in this folder; nothing else on the computer is touched but
# missing system libraries (Debian and Ubuntu: with apt-get as root or by sudo).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test lint screenshots gpu-check clean

# The first Python of 3.11 or newer; override with: make demo PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python3.14; do \
  command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  && { echo $$p; break; }; done)
# Options for the installation of torch alone, for instance another package index:
#   make demo TORCH_OPTIONS="--index-url ADDRESS"
TORCH_OPTIONS ?=
OUT ?= demo-output
PIP := .venv/bin/python -m pip --disable-pip-version-check --quiet --quiet
VPY := .venv/bin/python
# A virtual screen where there is none; GL in software, which needs no graphics card.
SCREEN := .ci/screen.sh

help:
	@echo "make demo         install into .venv, then train and map the sample slide and show it"
	@echo "make test         install into .venv, then style, types and all tests (CI runs this)"
	@echo "make lint         style and types only"
	@echo "make screenshots  take the pictures in docs/images again"
	@echo "make gpu-check    run everything on the CUDA card and hold it against the processor; 3: no card"
	@echo "make clean        remove .venv and what the targets above wrote"

demo: .venv/ready-all
	@.venv/bin/pathotune demo --out "$(OUT)"

test: .venv/ready-test lint
	@echo "Running the tests"
	@$(SCREEN) $(VPY) -m pytest $(PYTEST_OPTIONS)

lint: .venv/ready-test
	@echo "Checking style and types"
	@$(VPY) -m ruff check .
	@$(VPY) -m ruff format --check .
	@$(VPY) -m mypy

screenshots: .venv/ready-test
	@$(SCREEN) $(VPY) docs/make_screenshots.py

# Exit code 0: passed, 1: failed, 3: no CUDA card here.
gpu-check: .venv/ready-all
	@$(VPY) benchmarks/gpu_check.py

clean:
	rm -rf .venv "$(OUT)" dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

# torch comes first and alone: on a computer without a graphics card that offers a CPU build
# through pip's own settings, the pinned version takes that small file, and nothing later moves it.
.venv/ready-torch: constraints.txt .ci/system.sh
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or newer was not found." \
	  "Install it, or say where it is: make demo PYTHON=/path/to/python"; exit 1; }
	@bash .ci/system.sh "$(PYTHON)"
	@[ -x $(VPY) ] || { echo "Making .venv with $$($(PYTHON) --version)"; \
	  "$(PYTHON)" -m venv .venv || { rm -rf .venv; exit 1; }; }
	@if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; \
	  then echo "Installing torch (an NVIDIA card is here: with CUDA, a large download)"; \
	  else echo "Installing torch (no NVIDIA card found: the CPU build where one is offered)"; fi
	@$(PIP) install --constraint constraints.txt $(TORCH_OPTIONS) torch
	@touch $@

.venv/ready-all: .venv/ready-torch pyproject.toml
	@echo "Installing napari, the reader libraries and this plugin (a few minutes the first time)"
	@$(PIP) install --constraint constraints.txt --editable ".[all]"
	@touch $@

.venv/ready-test: .venv/ready-torch pyproject.toml
	@echo "Installing napari, the reader libraries, this plugin and the test tools" \
	  "(a few minutes the first time)"
	@$(PIP) install --constraint constraints.txt --editable ".[test]"
	@touch $@ .venv/ready-all
