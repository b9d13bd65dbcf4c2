# Every target makes what it needs; a second run finds it made.
# With another interpreter, in an environment of its own:  make test PYTHON=python3.13 VENV=.venv313

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := python -m pip --quiet --disable-pip-version-check

SOURCES := setup.py pyproject.toml $(wildcard fastcore/*.pyx fastcore/*.pxd fastcore/*.h)
# The floors of a message, from bytes to streams; and all whose messages pass through compiled code.
MESSAGES := $(addprefix tests/,engine wire channel transport)
COMPILED := $(MESSAGES) tests/client tests/server

.DEFAULT_GOAL := help
.PHONY: help demo demo-cluster test lint types compilers test-uvloop test-loop test-eager test-dev test-classic test-floor test-debug test-sanitize test-valgrind torture \
        fuzz fuzz-guided fuzz-server soak load coverage bench bench-peers bench-dask bench-dask-calls docs package matrix clean

help: ## show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

# ---- environments: each stamp says that a thing is installed in $(VENV)

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "fastcore needs Python 3.11 or later: make PYTHON=python3.13 ..."; exit 1; }
	@echo "making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/built: $(VENV)/made $(SOURCES)
	@echo "building fastcore ..."
	@$(BIN)/$(PIP) install --editable .
	@touch $@

$(VENV)/with-%: $(VENV)/made pyproject.toml
	@echo "installing what '$*' needs ..."
	@$(BIN)/$(PIP) install --group $*
	@touch $@

# Not every Python and system has them; the tests that need them skip.
$(VENV)/with-loops $(VENV)/with-frozen $(VENV)/with-dask $(VENV)/with-notebook: $(VENV)/with-%: $(VENV)/made pyproject.toml
	@echo "installing what '$*' needs, if there are wheels ..."
	@$(BIN)/$(PIP) install --only-binary :all: --group $* || echo "there are none"
	@touch $@

.PHONY: ready test-parts test-programs

# One pip after the other: what is made side by side from here on installs nothing.
TESTED := $(addprefix $(VENV)/with-,test types browser dask frozen loops notebook)
ready: $(VENV)/built $(TESTED) $(addprefix $(VENV)/with-,lint docs package)

# ---- the two that everybody needs

demo: $(VENV)/built ## start a server, run the example programs against it, show what is said
	@$(BIN)/python -m fastcore demo

test: lint test-parts test-programs ## the linters, the doctests and the tests

# Two halves, which `make --jobs` runs side by side: what happens in one process; and what starts programs
# and waits for them.
PROGRAMS := $(addprefix tests/,command dask interop monitor project)

test-parts: $(VENV)/built $(TESTED)
	$(BIN)/python -m pytest $(addprefix --ignore=,$(PROGRAMS))

test-programs: $(VENV)/built $(TESTED)
	$(BIN)/python -m pytest $(PROGRAMS)

demo-cluster: $(VENV)/built $(VENV)/with-dask ## servers in two workers of a Dask cluster, one of which is killed
	@$(BIN)/python examples/cluster.py

# ---- more checks and tests

lint: $(VENV)/built $(VENV)/with-lint $(VENV)/with-test ## ruff, mypy, cython-lint, and the stubs against what was compiled
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --python-version 3.11
	$(BIN)/mypy --python-version 3.15  # whose standard library has other types here and there
	PATH="$(BIN):$$PATH" $(BIN)/cython-lint fastcore  # which starts pycodestyle
	$(BIN)/python -m mypy.stubtest --ignore-missing-stub \
	  $(subst /,.,$(basename $(wildcard fastcore/*.pyx)))

types: $(VENV)/built $(VENV)/with-test $(VENV)/with-dask $(VENV)/with-types ## pyright
	$(BIN)/pyright --pythonpath $(BIN)/python

compilers: package ## a build by each C compiler of Debian's, without a warning
	.ci/compilers dist/*.tar.gz

test-uvloop: $(VENV)/built $(VENV)/with-test ## the tests on uvloop's event loop
	$(BIN)/python -m pytest --uvloop

test-loop: $(VENV)/built $(VENV)/with-test $(VENV)/with-loops ## the tests on another loop, such as LOOP=rloop
	$(BIN)/python -m pytest --loop $(LOOP)

test-eager: $(VENV)/built $(VENV)/with-test ## the tests with tasks that begin at once (from Python 3.12)
	$(BIN)/python -m pytest --eager --ignore tests/dask  # Dask's LocalCluster doesn't end then

test-dev: $(VENV)/built $(VENV)/with-test ## the tests in Python's dev mode and asyncio's debug mode
	PYTHONASYNCIODEBUG=1 $(BIN)/python -X dev -m pytest

test-classic: $(VENV)/built $(VENV)/with-test ## the programs of distributed 1.9.0 and their own tests, on fastcore
	$(BIN)/python -m pytest -m classic_programs tests/interop

test-floor: package ## the tests with the oldest dependencies that are allowed
	.ci/wheel_alone dist/*.tar.gz $(PYTHON) $$($(BIN)/python .ci/floors.py)

matrix: package ## the wheel, alone, under each Python found here; and with the oldest dependencies
	{ echo $(PYTHON) $$($(BIN)/python .ci/floors.py); $(BIN)/python .ci/pythons.py; } \
	  | nice -n 19 xargs -P "$$(nproc)" -L 1 .ci/wheel_alone dist/*.tar.gz  # beside others it takes what they leave

coverage: $(VENV)/built $(VENV)/with-test $(VENV)/with-coverage ## which lines the tests reach
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered

soak: $(VENV)/built $(VENV)/with-test ## ten minutes of load
	$(BIN)/python tests/load/soak.py --seconds 600 --messages 10000000

torture: $(VENV)/built $(VENV)/with-test ## collectors and signal handlers that come back in, 200 seeds of them, and at each line (minutes)
	FASTCORE_SEEDS=200 $(BIN)/python -m pytest tests/channel/test_coming_back_in.py tests/*/test_*at_each_line.py

load: $(VENV)/built $(VENV)/with-test ## 1,000 connections x 1,000 calls, some given up (minutes)
	$(BIN)/python tests/load/load.py

fuzz-server: $(VENV)/built $(VENV)/with-test ## a million bent inputs over real sockets, healthy clients beside them
	$(BIN)/python tests/fuzz/server.py

# ---- compiled code under instruments: a debug build, its tests run away from the sources

.venv-debug/built .venv-sanitize/built: export FASTCORE_DEBUG = 1
.venv-sanitize/built: export FASTCORE_SANITIZE = address,undefined

.venv-debug/built .venv-sanitize/built: $(SOURCES)
	@echo "building fastcore with $(@D) ..."
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/$(PIP) install --upgrade 'pip>=25.1'
	@$(@D)/bin/$(PIP) install --group test .
	@touch $@

# Not from the tree: there, the release build would be found first.
away = rm -rf build/away && mkdir -p build/away && cp -r pyproject.toml conftest.py tests build/away && cd build/away

test-debug: .venv-debug/built ## all that passes through compiled code, with every check on
	$(away) && ../../.venv-debug/bin/python -m pytest $(COMPILED)

test-sanitize: .venv-sanitize/built ## ... with the address and undefined-behaviour sanitizers
	$(away) && LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	  PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	  UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  ../../.venv-sanitize/bin/python -m pytest --timeout=0 $(COMPILED)

test-valgrind: .venv-debug/built ## ... under valgrind, up to the streams
	$(away) && PYTHONMALLOC=malloc \
	  valgrind --quiet --error-exitcode=9 --num-callers=12 --suppressions=tests/valgrind.supp \
	  ../../.venv-debug/bin/python -m pytest --timeout=0 -m "not slow_under_valgrind" $(MESSAGES)

fuzz: $(VENV)/built $(VENV)/with-test ## millions of random streams against the reference
	$(BIN)/python tests/fuzz/random_streams.py --examples 3_000_000 --seconds 1200

fuzz-guided: $(VENV)/built $(VENV)/with-fuzz ## the same, guided by coverage
	$(BIN)/python tests/fuzz/guided.py -max_total_time=600 -max_len=4000 -rss_limit_mb=4096

# ---- benchmarks, documents, packages

bench: $(VENV)/built $(VENV)/with-bench ## the benchmarks: the parts, then a short side-by-side run
	$(BIN)/python -m pytest --benchmark
	$(BIN)/python -m bench run --short

bench-peers: $(VENV)/built $(VENV)/with-peers ## the side-by-side run with every peer, the better part of an hour
	$(BIN)/python -m bench run

bench-dask: $(VENV)/built $(VENV)/with-test $(VENV)/with-dask ## Dask over fastcore:// beside Dask over tcp://, some minutes
	$(BIN)/python -m bench.dask --into bench/RESULTS.md

bench-dask-calls: $(VENV)/built $(VENV)/with-dask ## what a call into a Dask cluster costs
	$(BIN)/python -m bench.dask.calls

docs: $(VENV)/built $(VENV)/with-docs $(VENV)/with-dask ## the documentation, in docs/_build/html
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

package: $(VENV)/with-package ## sdist and wheel, in dist/
	rm -rf dist build/again
	$(BIN)/python -m build
	$(BIN)/python -m build --quiet --sdist --outdir build/again
	cmp dist/*.tar.gz build/again/*.tar.gz  # who builds it again gets the same bytes
	$(BIN)/python .ci/check_dist.py

clean: ## remove what was made
	rm -rf .venv* build dist *.egg-info docs/_build
	rm -rf .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -f fastcore/*.so
