# make demo    trains the embedded model on the embedded shards and shows what changed
# make test    the test suite
# make test-all   the same with the slow ones: a lost host, offloading to disk, other numbers of ranks
# make faults  kills, damaged bytes, full disks and the like, each followed by what must hold (tests/README.md); writes a page
#              into launchers/results/. FAULTS_SEED draws instants and bits, FAULTS_ROWS (a regular expression) chooses rows,
#              FAULTS more options; what has held with a seed is not played again without FAULTS=--again
# make fuzz    damaged and hostile files at every entrance, for an hour (MINUTES); what breaks is kept in fuzz-finds/
# make gpu-dry every family on a GPU that is none, with a CUDA build of torch in an environment of its own (.venv-gpu-dry, 7 GB);
#              writes a page into launchers/results/
# make install the virtual environment alone
# make clean   removes the environment and what runs left behind
#
# Variables: PYTHON (3.11 or newer), VENV, CONSTRAINTS (the versions: make test CONSTRAINTS=constraints-next.txt VENV=.venv-gpu-dry
# takes the next ones), FAMILIES (of gpu-dry), TORCH_INDEX (another wheel index, e.g. https://download.pytorch.org/whl/cpu:
# plain Linux wheels of torch are the CUDA builds of several GB), EXTRAS (e.g. test,gpu), TESTS (arguments for pytest),
# WORKERS (processes that run tests; many start ranks of their own, and many wait: three keep two cores busy), MINUTES (of fuzzing).

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
TORCH_INDEX ?=
EXTRAS ?= test
TESTS ?=
WORKERS ?= 3
FAULTS_SEED ?= 0
FAULTS_ROWS ?=
FAULTS ?=
MINUTES ?= 60
FAMILIES ?=
BIN := $(abspath $(VENV))/bin
STAMP := $(VENV)/.installed
SHELL := /bin/bash

# DeepSpeed's gloo ranks share the cores: without this each would start as many threads as there are cores.
export OMP_NUM_THREADS ?= 1
export PATH := $(BIN):$(PATH)

.PHONY: demo test test-all faults fuzz gpu-dry install lint clean

demo: $(STAMP)
	svco train --ds ds_configs/zero3.json --ranks 2

test: $(STAMP) lint
	python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

test-all:
	$(MAKE) test TESTS="--slow $(TESTS)"

faults: $(STAMP)
	PYTHONPATH=tests python -m faults.suite --seed $(FAULTS_SEED) $(if $(FAULTS_ROWS),--rows '$(FAULTS_ROWS)') $(FAULTS)

fuzz: $(STAMP)
	python tests/fuzz/run.py --minutes $(MINUTES)

# flash-attn's Python without its kernels: nothing of it is compiled.
gpu-dry: VENV = .venv-gpu-dry
gpu-dry: CONSTRAINTS = constraints-next.txt
gpu-dry:
	$(MAKE) install VENV=$(VENV) CONSTRAINTS=$(CONSTRAINTS)
	FLASH_ATTENTION_SKIP_CUDA_BUILD=TRUE $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		-c launchers/install/constraints-cuda.txt flash-attn
	PYTHONPATH=tests $(VENV)/bin/python -m gpu_dry.suite $(if $(FAMILIES),--families $(FAMILIES))

lint: $(STAMP)
	ruff check
	ruff format --check
	mypy

install: $(STAMP)

$(STAMP): setup.cfg pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "svco needs Python 3.11 or newer: make PYTHON=python3.11"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "Python's venv is missing: apt-get install python3-venv"; exit 2; }
	@command -v g++ >/dev/null || { echo "No C++ compiler, which DeepSpeed needs at first use: apt-get install g++"; exit 2; }
	@$(PYTHON) -c 'import os, sys, sysconfig; p = sysconfig.get_paths()["include"]; sys.exit(not os.path.exists(p + "/Python.h"))' \
		|| { echo "Python's headers are missing: apt-get install python3-dev"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) torch
	$(BIN)/python -m pip install --use-pep517 --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[$(EXTRAS)]'
	@# What DeepSpeed compiles when ranks first meet on a CPU, half a minute: here and not in the first run. On a GPU there is none.
	$(BIN)/python -c 'from deepspeed.comm.torch import build_shm_op; build_shm_op()' > /dev/null \
		|| echo "DeepSpeed could not compile an operator; the first run with --ds will say why."
	@touch $@

clean:
	rm -rf $(VENV) .venv-gpu-dry build *.egg-info runs .pytest_cache .ruff_cache .mypy_cache .hypothesis fuzz-finds
