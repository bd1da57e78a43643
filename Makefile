# Every target makes its own environment first: Python 3.11 or newer, pip, make and git are all it needs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
UV := .cache/uv/bin/uv
# Packages come from uv.lock alone, and run from the checkout alone, whatever the user's shell has set.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME ANSIBLE_CONFIG ANSIBLE_COLLECTIONS_PATH ANSIBLE_ROLES_PATH
export UV_PYTHON_DOWNLOADS := never
export UV_COMPILE_BYTECODE := 1
export UV_SYSTEM_CERTS := 1
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help
help: ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/make \1\t\2/p' Makefile | expand -t 20

.PHONY: setup
setup: .venv/synced ## the environment .venv, from uv.lock with its hashes

$(UV): tools/uv.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer in PATH: install one, or name it: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || { echo "$(PYTHON) has no pip: install it (Debian: apt-get install python3-pip)"; exit 1; }
	@PIP_ROOT_USER_ACTION=ignore $(PYTHON) -m pip install --quiet --disable-pip-version-check --upgrade \
		--require-hashes --no-deps --target .cache/uv -r tools/uv.txt
	@touch $@

.venv/synced: $(UV) uv.lock pyproject.toml
	@$(UV) sync --quiet --frozen --python "$$(command -v $(PYTHON))"
	@touch $@

.PHONY: demo
demo: .venv/synced ## the small ISP of the lab: audit, mend, audit again, and a third run that changes nothing
	@tools/system_packages demo
	@python -m tools.demo

.PHONY: test
test: .venv/synced ## everything: linters, types, tests (what is skipped, and why, stands above the last line)
	@tools/system_packages test
	@# The linters run beside the tests, and speak when they are done; so are the images of the mail hosts made, for which
	@# the tests of those hosts wait. Who cannot have them is told, and the tests skip them.
	@# A worker more than there are processors: much of the time is spent waiting for daemons.
	@{ said=$$($(MAKE) --no-print-directory lint 2>&1) && failed=0 || failed=1; echo; echo "$$said"; exit $$failed; } & \
		linters=$$!; python -m lab.mail images >/dev/null & failed=0; \
		pytest -n $$(( $$(nproc) + 1 )) --dist worksteal || failed=1; \
		wait $$linters || { failed=1; echo "The linters are not content: see what they say above."; }; exit $$failed

.PHONY: lint
lint: .venv/synced ## ruff, mypy, yamllint, ansible-lint
	@failed=0; \
	for linter in "ruff check" mypy "yamllint --strict ." ansible-lint "antsibull-changelog lint"; do \
		$$linter || { echo "$$linter: not clean"; failed=1; }; \
	done; exit $$failed

.PHONY: docs
docs: .venv/synced ## the generated pages: role READMEs, docs/controls.md, docs/platforms.md
	python tools/controls.py
	python tools/platforms.py
	python tools/role_readme.py

.PHONY: test-matrix
test-matrix: $(UV) ## the tests on the lowest and the newest supported versions, where the Pythons exist
	@UV=$(UV) tools/test_matrix

.PHONY: bench
bench: $(UV) ## docs/performance.md: speed and memory, in an environment that also has cisco.ios to compare with
	@UV_PROJECT_ENVIRONMENT=.venv-bench $(UV) sync --quiet --frozen --no-default-groups --group test --group bench --python "$$(command -v $(PYTHON))"
	PATH="$(CURDIR)/.venv-bench/bin:$$PATH" python -m tests.bench

# The long runs add up in tests/assurance/figures.json; MINUTES is how long each kind of fuzzing looks.
MINUTES ?= 60
.PHONY: assure
assure: .venv/synced ## docs/assurance.md: mutants of every platform, then MINUTES of fuzzing by grammar
	python -m tests.assurance mutation fuzz --minutes $(MINUTES) --write

.PHONY: fuzz
fuzz: $(UV) ## MINUTES of coverage-guided fuzzing, in an environment that also has atheris
	@UV_PROJECT_ENVIRONMENT=.venv-fuzz $(UV) sync --quiet --frozen --no-default-groups --group test --group fuzz --python "$$(command -v $(PYTHON))"
	PATH="$(CURDIR)/.venv-fuzz/bin:$$PATH" python -m tests.assurance guided --minutes $(MINUTES) --write

.PHONY: build
build: .venv/synced ## dist/: the wheel and its sources for pip, the collection for ansible-galaxy
	@rm -rf build dist && mkdir -p build dist
	git archive HEAD | tar -x -C build  # what is committed, and nothing that happens to lie around
	cd build && python -m hatchling build -d ../dist && ansible-galaxy collection build --output-path ../dist

.PHONY: clean
clean: ## takes everything away that a target made, but backups, history and reports
	rm -rf .venv .venv-* .cache dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .ansible
