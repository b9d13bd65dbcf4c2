# Every target makes what it needs; a second run finds it made.
# Another interpreter, with an environment of its own:  make test PYTHON=python3.13 VENV=.venv313

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check

SOURCES := setup.py pyproject.toml $(wildcard fastcore/*.pyx fastcore/*.pxd fastcore/*.h)

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench bench-peers docs package clean

help: ## show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

# ---- environments: each stamp says that a thing is installed in $(VENV)

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "fastcore needs Python 3.11 or later, $(PYTHON) is older: make PYTHON=python3.13 ..."; exit 1; }
	@echo "making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/built: $(VENV)/made $(SOURCES)
	@echo "building fastcore ..."
	@$(PIP) install --editable .
	@touch $@

$(VENV)/with-%: $(VENV)/made pyproject.toml
	@echo "installing what '$*' needs ..."
	@$(PIP) install --group $*
	@touch $@

# ---- the two that everybody needs

demo: $(VENV)/built ## start a server, run the example programs against it, show what is said
	@$(BIN)/python -m fastcore demo

test: lint $(VENV)/with-test ## ruff, mypy, cython-lint, the doctests and the tests
	$(BIN)/python -m pytest

# ---- the rest

lint: $(VENV)/built $(VENV)/with-lint ## ruff, mypy and cython-lint alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(BIN):$$PATH" $(BIN)/cython-lint fastcore  # which starts pycodestyle

bench: $(VENV)/built $(VENV)/with-bench ## the benchmarks: the parts, then a short side-by-side run
	$(BIN)/python -m pytest --benchmark
	$(BIN)/python -m bench run --short

bench-peers: $(VENV)/built $(VENV)/with-peers ## the side-by-side run with every peer (the better part of an hour)
	$(BIN)/python -m bench run

docs: $(VENV)/built $(VENV)/with-docs ## the documentation, into docs/_build/html
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

package: $(VENV)/with-package ## sdist and wheel, into dist/
	$(BIN)/python -m build

clean: ## remove what was made
	rm -rf .venv* build dist *.egg-info docs/_build
	rm -rf .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -f fastcore/*.so
