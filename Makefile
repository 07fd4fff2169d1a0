# `make` lists what there is. Everything Python is installed into .venv, once; setup.cfg says what.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
# The oldest Python that setup.cfg allows, where it is installed.
OLDEST_PYTHON ?= $(shell python3.10 -c 'print("python3.10")' 2>/dev/null || echo $(PYTHON))
PACKAGES := loaders kernels training cluster benchmarks

# What FFCV is compiled against, and the SLURM that tests of cluster/ start by themselves.
SYSTEM_PACKAGES := g++ python3-dev pkg-config libturbojpeg0-dev libopencv-dev \
  slurmctld slurmd slurm-client

# Extras of setup.cfg that tests need, and skip without.
EXTRAS := dali ffcv peers adapters streams parquet docs
OPTIONAL := $(addprefix $(VENV)/.,$(EXTRAS))
comma := ,
all_of = $(subst $() ,$(comma),$(strip $(1)))

# Without setuptools' warning that an editable install is one.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip --disable-pip-version-check

# Bytecode is kept: tests start a hundred processes.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest

.DEFAULT_GOAL := help
.PHONY: constraints help demo test test-all test-oldest lint types bench trust gpu docs compile-matrix clean
.NOTPARALLEL:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# As in benchmarks/papers/dilo.py: objects have colours of their class, and views keep colours.
DEMO = 'data.train=scenes(count=4000, size=64, background_bias=0.9, colour_bias=1)' \
  'data.test=scenes(count=2000, seed=1, size=64, colour_bias=1)' \
  'method.views=dilo(size=32, scale=(0.4, 1.0))' method.queue=256 method.momentum=0.99 \
  method.temperature=0.2 method.symmetric=false optim.lr=0.0015 train.log_every=7
demo: $(VENV)/.base ## measure the throughput here, then train DiLo on painted scenes and report
	$(BIN)/python benchmarks/throughput.py --seconds 3
	$(BIN)/python training/run.py method=dilo data=biased_scenes scale=demo $(DEMO) \
	  train.epochs=6 evaluate.knn_every=2 out=build name=demo

test: $(VENV)/.dev $(VENV)/.system $(VENV)/.optional ## run the tests that this machine can run
	$(PYTEST) -n auto --dist loadgroup -m "not slow"

test-all: $(VENV)/.dev $(VENV)/.system $(VENV)/.optional ## run them and the slow ones, which take longer forms of the same checks
	$(PYTEST) -n auto --dist loadgroup

test-oldest: $(OLDEST)/.made ## run tests with the oldest of everything that setup.cfg allows
	$(OLDEST)/bin/pytest tests/kernels -k compiled
	$(OLDEST)/bin/pytest tests/test_interpreted.py tests/loaders -m 'not slow'
	$(OLDEST)/bin/python training/run.py method=moco data=scenes scale=demo train.epochs=1 \
	  out=build name=oldest resume=never

lint: $(VENV)/.dev types ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# mypy and pyright do not run __path__ code: give them the installed layout as links.
types: ## link the packages where type checkers and editors find them
	@mkdir -p build/types/patchmill
	@for file in __init__.py script.py command; do ln -sfn ../../../patchmill/$$file build/types/patchmill/$$file; done
	@for package in $(PACKAGES); do ln -sfn ../../../$$package build/types/patchmill/$$package; done

constraints: $(VENV)/.dev ## pin the versions that are installed and tested here, in constraints.txt
	$(BIN)/python tests/make_constraints.py

bench: $(VENV)/.base $(VENV)/.dali $(VENV)/.peers ## measure beside all peers, into build/throughput.json
	@mkdir -p build
	$(BIN)/python benchmarks/throughput.py --peers all --json build/throughput.json

# With the environment as it is, if torch is there: a machine with a GPU may have no network.
gpu: ## check and measure all that a GPU is for in 13 minutes, into build/gpu-day; ARGS="--dry-run" and others
	@python=$(PYTHON); [ ! -x $(BIN)/python ] || python=$(BIN)/python; $$python benchmarks/gpu_day.py $(ARGS)

trust: $(VENV)/.dev $(VENV)/.optional ## kill, damage, fill up and flood it for half an hour, into build/trust; ARGS="--form long"
	$(BIN)/python tests/trust $(ARGS)

docs: $(VENV)/.docs ## build the documentation as a site, into build/site; VERSION=0.2 adds it to others there
	$(BIN)/python docs/make_site.py $(if $(VERSION),--version $(VERSION))

compile-matrix: $(VENV)/.dev ## compile all kernels by every Triton that is supported; needs no GPU
	$(BIN)/python benchmarks/compile_matrix.py --json benchmarks/results/compile-matrix.json

clean: ## remove all that was built here, but not .venv (rm -r .venv to start afresh)
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(PACKAGES) patchmill tests -name __pycache__ -prune -exec rm -rf {} +

# ------------------------------------------------------------------------------- what gets installed

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "patchmill needs Python 3.10 or newer, which '$(PYTHON)' is not: name one, as in make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	@echo "Making $(VENV) (once; PyTorch and its CUDA libraries take some minutes and 6 GB of disk)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --upgrade pip
	@touch $@

$(VENV)/.base: setup.cfg | $(VENV)/.made
	@echo "Installing patchmill and what it needs"
	@$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.dev: setup.cfg | $(VENV)/.made
	@echo "Installing patchmill, what it needs and the tools to test it"
	@$(PIP) install --quiet --editable '.[dev,bench]'
	@touch $@ $(VENV)/.base

# Optional: what fails here is reported, and the tests that need it are skipped.
$(VENV)/.system: | $(VENV)/.made
	@if dpkg -s $(SYSTEM_PACKAGES) >/dev/null 2>&1; then :; \
	elif ! command -v apt-get >/dev/null || [ "$$(id -u)" != 0 ]; then \
	  echo "Not root, or no apt-get: install $(SYSTEM_PACKAGES) yourself if FFCV cannot be built, or for the tests on SLURM"; \
	else \
	  echo "Installing $(SYSTEM_PACKAGES)"; export DEBIAN_FRONTEND=noninteractive; \
	  { apt-get update && apt-get install --yes --no-install-recommends $(SYSTEM_PACKAGES); } >$@.log 2>&1 </dev/null \
	    || echo "apt-get failed, FFCV and SLURM may be missing ($@.log says why)"; \
	fi
	@touch $@

# All in one go, which saves half a minute; where that fails, one by one.
$(VENV)/.optional: setup.cfg | $(VENV)/.system
	@echo "Installing what is optional: $(EXTRAS)"
	@$(PIP) install --quiet --editable '.[$(call all_of,$(EXTRAS))]' >$@.log 2>&1 \
	  && touch $(OPTIONAL) || $(MAKE) --no-print-directory $(OPTIONAL)
	@touch $@

$(VENV)/.ffcv: | $(VENV)/.system
$(OPTIONAL): $(VENV)/.%: setup.cfg | $(VENV)/.made
	@echo "Installing the optional $*"
	@$(PIP) install --quiet --editable '.[$*]' >$@.log 2>&1 \
	  || echo "$* cannot be installed ($@.log says why): tests that need it are skipped; to try again, rm $@"
	@touch $@

# pip has no way to ask for the lowest versions of what setup.cfg names; uv has.
$(OLDEST)/.made: setup.cfg
	@echo "Making $(OLDEST) with $(OLDEST_PYTHON) (PyTorch and its CUDA libraries take 7 GB of disk)"
	@$(OLDEST_PYTHON) -m venv --clear $(OLDEST)
	@$(OLDEST)/bin/python -m pip install --quiet uv
	@VIRTUAL_ENV=$(OLDEST) $(OLDEST)/bin/uv pip install --quiet --resolution lowest-direct --editable .
	@VIRTUAL_ENV=$(OLDEST) $(OLDEST)/bin/uv pip freeze --exclude-editable >$@.txt
	@VIRTUAL_ENV=$(OLDEST) $(OLDEST)/bin/uv pip install --quiet --constraints $@.txt \
	  pytest pytest-xdist hypothesis scipy
	@touch $@
