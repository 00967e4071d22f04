# Two commands: `make run` (install, then the default benchmark) and `make test` (install, then the tests).
# `make docs` builds the site.
PYTHON ?= python3
VENV ?= .venv
OLDEST ?= .venv-oldest
WORKERS ?= 2
PIP := -q --disable-pip-version-check
BIN := $(VENV)/bin

# Tests start hundreds of processes, each of which would else compile the modules that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-thorough test-oldest test-oldest-quick lint docs install install-dev install-oldest download-oldest clean

run: $(VENV)/.installed
	$(BIN)/mia-bench run --defense neg-ls --attack ppa

test: $(VENV)/.installed-dev lint
	MIA_BENCH_STRICT=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not thorough'

# The tests that take long, before a release.
test-thorough: $(VENV)/.installed-dev
	MIA_BENCH_STRICT=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m thorough

# All tests with the oldest dependencies that pyproject.toml allows; the second leaves out what takes long.
test-oldest: $(OLDEST)/.installed
	MIA_BENCH_STRICT=1 $(OLDEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m 'not newest'

test-oldest-quick: $(OLDEST)/.installed
	MIA_BENCH_STRICT=1 $(OLDEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m 'not newest and not slow and not thorough'

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html -c docs -d docs/_build/doctrees . docs/_build/html
	@echo docs/_build/html/index.html

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev
install-oldest: $(OLDEST)/.installed
download-oldest: $(OLDEST)/.dependencies

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install $(PIP) -e '.[onnx]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install $(PIP) -e '.[onnx,dev]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install $(PIP) -e '.[onnx,docs]'
	touch $@ $(VENV)/.installed

$(OLDEST)/.dependencies: pyproject.toml tests/oldest.py
	$(PYTHON) -m venv $(OLDEST)
	$(PYTHON) tests/oldest.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install $(PIP) --no-compile -r $(OLDEST)/constraints.txt
	touch $@

$(OLDEST)/.installed: $(OLDEST)/.dependencies
	$(OLDEST)/bin/python -m pip install $(PIP) --no-compile -c $(OLDEST)/constraints.txt -e '.[onnx,dev]'
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) docs/_build build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
