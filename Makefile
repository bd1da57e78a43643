# Every target makes its own environment first: Python 3.11 or newer, pip, make and git are all it needs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
UV := .cache/uv/bin/uv
BIN := .venv/bin
# The project's own choice of packages, whatever the user's shell or configuration says of indexes.
export UV_PYTHON_DOWNLOADS := never
export UV_COMPILE_BYTECODE := 1
export UV_PROJECT_ENVIRONMENT := .venv
unexport VIRTUAL_ENV PYTHONPATH ANSIBLE_CONFIG

.PHONY: help
help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1 \t\2/p' Makefile | expand -t 24

$(UV): tools/uv.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer in PATH: install one, or name it: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || { echo "$(PYTHON) has no pip: install it (Debian: apt-get install python3-pip)"; exit 1; }
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --upgrade --require-hashes --target .cache/uv -r tools/uv.txt
	@touch $@

.venv/synced: $(UV) uv.lock pyproject.toml galaxy.yml
	$(UV) sync --quiet --frozen --python "$$(command -v $(PYTHON))"
	@touch $@

.PHONY: setup
setup: .venv/synced ## .venv with everything, from uv.lock
