# `make` lists the targets. Python packages are installed into .venv, once; setup.cfg lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
# The oldest Python that setup.cfg allows, where it is installed.
OLDEST_PYTHON ?= $(shell python3.10 -c 'print("python3.10")' 2>/dev/null || echo $(PYTHON))
PACKAGES := loaders kernels training cluster benchmarks

# Packages that FFCV is compiled against, and the SLURM that the tests of cluster/ start themselves.
SYSTEM_PACKAGES := g++ python3-dev pkg-config libturbojpeg0-dev libopencv-dev \
  slurmctld slurmd slurm-client

# Extras of setup.cfg that some tests need; without them, these tests are skipped.
EXTRAS := dali ffcv peers adapters streams parquet docs
OPTIONAL := $(addprefix $(VENV)/.,$(EXTRAS))
comma := ,
all_of = $(subst $() ,$(comma),$(strip $(1)))

# Silence setuptools' warning about editable installs.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip --disable-pip-version-check

# Keep bytecode: tests start a hundred processes.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest

.DEFAULT_GOAL := help
.PHONY: constraints help demo test test-all test-oldest lint types bench trust gpu docs compile-matrix clean
.NOTPARALLEL:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# As in benchmarks/papers/dilo.py: colours depend on the class, and views keep colours.
DEMO = 'data.train=scenes(count=4000, size=64, background_bias=0.9, colour_bias=1)' \
  'data.test=scenes(count=2000, seed=1, size=64, colour_bias=1)' \
  'method.views=dilo(size=32, scale=(0.4, 1.0))' method.queue=256 method.momentum=0.99 \
  method.temperature=0.2 method.symmetric=false optim.lr=0.0015 train.log_every=7
demo: $(VENV)/.base ## measure the throughput here, then train DiLo on synthetic scenes and write a report
	$(BIN)/python benchmarks/throughput.py --seconds 3
	$(BIN)/python training/run.py method=dilo data=biased_scenes scale=demo $(DEMO) \
	  train.epochs=6 evaluate.knn_every=2 out=build name=demo

test: $(VENV)/.dev $(VENV)/.system $(VENV)/.optional ## run the tests that this machine can run
	$(PYTEST) -n auto --dist loadgroup -m "not slow"

test-all: $(VENV)/.dev $(VENV)/.system $(VENV)/.optional ## run these and the slow tests, which are longer forms of the same checks
	$(PYTEST) -n auto --dist loadgroup

test-oldest: $(OLDEST)/.made ## run tests with the oldest versions of all dependencies that setup.cfg allows
	$(OLDEST)/bin/pytest tests/kernels -k compiled
	$(OLDEST)/bin/pytest tests/test_interpreted.py tests/loaders -m 'not slow'
	$(OLDEST)/bin/python training/run.py method=moco data=scenes scale=demo train.epochs=1 \
	  out=build name=oldest resume=never

lint: $(VENV)/.dev types ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# mypy and pyright do not execute __path__ code: give them the installed layout as links.
types: ## link the packages where type checkers and editors find them
	@mkdir -p build/types/patchmill
	@for file in __init__.py script.py command; do ln -sfn ../../../patchmill/$$file build/types/patchmill/$$file; done
	@for package in $(PACKAGES); do ln -sfn ../../../$$package build/types/patchmill/$$package; done

constraints: $(VENV)/.dev ## write the installed and tested versions to constraints.txt
	$(BIN)/python tests/make_constraints.py

bench: $(VENV)/.base $(VENV)/.dali $(VENV)/.peers ## measure the throughput of patchmill and all peers, into build/throughput.json
	@mkdir -p build
	$(BIN)/python benchmarks/throughput.py --peers all --json build/throughput.json

# Uses the existing environment: a machine with a GPU may have no network.
gpu: ## run all GPU checks and measurements in 13 minutes, into build/gpu-day; ARGS="--dry-run" and others
	@python=$(PYTHON); [ ! -x $(BIN)/python ] || python=$(BIN)/python; $$python benchmarks/gpu_day.py $(ARGS)

trust: $(VENV)/.dev $(VENV)/.optional ## test with kills, damage, full disks and hostile input for half an hour, into build/trust; ARGS="--form long"
	$(BIN)/python tests/trust $(ARGS)

docs: $(VENV)/.docs ## build the documentation as a site, into build/site; VERSION=0.2 adds it as one of several versions
	$(BIN)/python docs/make_site.py $(if $(VERSION),--version $(VERSION))

compile-matrix: $(VENV)/.dev ## compile all kernels with every supported Triton; needs no GPU
	$(BIN)/python benchmarks/compile_matrix.py --json benchmarks/results/compile-matrix.json

clean: ## remove everything built here except .venv (rm -r .venv to start over)
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(PACKAGES) patchmill tests -name __pycache__ -prune -exec rm -rf {} +

# ------------------------------------------------------------------------------- what gets installed

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "patchmill needs Python 3.10 or newer, and '$(PYTHON)' is older or missing: name another, as in make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot create virtual environments: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	@echo "Creating $(VENV) (once; PyTorch and its CUDA libraries take some minutes and 6 GB of disk)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --upgrade pip
	@touch $@

$(VENV)/.base: setup.cfg | $(VENV)/.made
	@echo "Installing patchmill and its dependencies"
	@$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.dev: setup.cfg | $(VENV)/.made
	@echo "Installing patchmill, its dependencies and the development tools"
	@$(PIP) install --quiet --editable '.[dev,bench]'
	@touch $@ $(VENV)/.base

# Optional: failures are reported, and the tests that need the package are skipped.
$(VENV)/.system: | $(VENV)/.made
	@if dpkg -s $(SYSTEM_PACKAGES) >/dev/null 2>&1; then :; \
	elif ! command -v apt-get >/dev/null || [ "$$(id -u)" != 0 ]; then \
	  echo "Not root, or no apt-get: install $(SYSTEM_PACKAGES) yourself if FFCV cannot be built, or for the SLURM tests"; \
	else \
	  echo "Installing $(SYSTEM_PACKAGES)"; export DEBIAN_FRONTEND=noninteractive; \
	  { apt-get update && apt-get install --yes --no-install-recommends $(SYSTEM_PACKAGES); } >$@.log 2>&1 </dev/null \
	    || echo "apt-get failed, FFCV and SLURM may be missing ($@.log says why)"; \
	fi
	@touch $@

# All in one pip call, which saves half a minute; if that fails, one by one.
$(VENV)/.optional: setup.cfg | $(VENV)/.system
	@echo "Installing optional packages: $(EXTRAS)"
	@$(PIP) install --quiet --editable '.[$(call all_of,$(EXTRAS))]' >$@.log 2>&1 \
	  && touch $(OPTIONAL) || $(MAKE) --no-print-directory $(OPTIONAL)
	@touch $@

$(VENV)/.ffcv: | $(VENV)/.system
$(OPTIONAL): $(VENV)/.%: setup.cfg | $(VENV)/.made
	@echo "Installing the optional $*"
	@$(PIP) install --quiet --editable '.[$*]' >$@.log 2>&1 \
	  || echo "$* cannot be installed ($@.log says why): tests that need it are skipped; to retry, rm $@"
	@touch $@

# pip cannot install the lowest versions that setup.cfg allows; uv can.
$(OLDEST)/.made: setup.cfg
	@echo "Creating $(OLDEST) with $(OLDEST_PYTHON) (PyTorch and its CUDA libraries take 7 GB of disk)"
	@$(OLDEST_PYTHON) -m venv --clear $(OLDEST)
	@$(OLDEST)/bin/python -m pip install --quiet uv
	@VIRTUAL_ENV=$(OLDEST) $(OLDEST)/bin/uv pip install --quiet --resolution lowest-direct --editable .
	@VIRTUAL_ENV=$(OLDEST) $(OLDEST)/bin/uv pip freeze --exclude-editable >$@.txt
	@VIRTUAL_ENV=$(OLDEST) $(OLDEST)/bin/uv pip install --quiet --constraints $@.txt \
	  pytest pytest-xdist hypothesis scipy
	@touch $@
