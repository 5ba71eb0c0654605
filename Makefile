# make            environment and build            make test    all tests
# make demo       train, evaluate, draw            make check   format, lint, types
# make bench      benchmark table                  make docs    lessons and reference as site/
# make gpu        on a GPU: its tests, compute-sanitizer, benchmarks; within 30 minutes
# make clean      removes what was built           (SHORT=1: lessons in seconds)
#
# Everything lives in .venv of this checkout. PYTHON chooses the interpreter it is made with.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The version that the project is tested with; any torch >= 2.11 that is already in .venv is kept.
TORCH ?= torch==2.13.0
# Worker processes of the tests; each runs torch on one thread.
WORKERS ?= 2

.DEFAULT_GOAL := build
.PHONY: build demo test check format bench gpu docs clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first and on its own: nothing after it may choose another.
$(VENV)/.torch: | $(BIN)/python
	$(BIN)/python -m pip show --quiet torch >/dev/null 2>&1 || $(BIN)/python -m pip install "$(TORCH)"
	$(BIN)/python -m pip list --format freeze | grep '^torch==' >$@

INSTALL := $(BIN)/python -m pip install --constraint $(VENV)/.torch

$(VENV)/.requirements: pyproject.toml setup.py | $(VENV)/.torch
	$(INSTALL) --quiet "setuptools>=77" "cmake>=3.24" ninja "pybind11>=2.12"
	$(INSTALL) --quiet --editable ".[train,h5,test]" --no-build-isolation
	@touch $@ $(VENV)/.built

SOURCES := CMakeLists.txt $(shell find csrc -type f ! -name '*.md')
$(VENV)/.built: $(SOURCES) | $(VENV)/.requirements
	$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

build: $(VENV)/.requirements $(VENV)/.built

demo: build
	$(BIN)/pymlp demo --overwrite

test: build
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

$(VENV)/.dev: pyproject.toml | $(VENV)/.requirements
	$(INSTALL) --quiet --editable ".[dev]" --no-build-isolation
	@touch $@

CLANG_FORMAT_FILES = $$(git ls-files '*.h' '*.cuh' '*.cpp' '*.cu')
check: build $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CLANG_FORMAT_FILES)
	$(BIN)/python -m pytest -q tests/test_layering.py

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(CLANG_FORMAT_FILES)

bench: build
	$(BIN)/python -m benchmarks

# Seconds that each part may take. Without torch's cache of memory every tensor has bounds of its own.
GPU_PART = timeout 420 env PYTHONUNBUFFERED=1
SANITIZER = $(GPU_PART) PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --error-exitcode 1 --tool
GPU_TESTS = $(BIN)/python -m pytest -m gpu tests/test_gpu.py tests/test_gpu_pairs.py
gpu: build
	$(BIN)/python -c "import torch; assert torch.cuda.is_available(), 'torch sees no CUDA GPU'"
	$(GPU_PART) $(GPU_TESTS)
	$(GPU_PART) $(BIN)/python -m benchmarks.gpu --out benchmarks/results/gpu.json
	$(SANITIZER) memcheck $(GPU_TESTS) -q -k "f32 and not 32_bits and not graph and not autograd"
	$(SANITIZER) racecheck $(GPU_TESTS) -q -k "same_as_the_cpu and neighbours or differences"

$(VENV)/.docs: pyproject.toml | $(VENV)/.requirements
	$(INSTALL) --quiet --editable ".[docs]" --no-build-isolation
	@touch $@

docs: build $(VENV)/.docs
	$(BIN)/python docs/build.py $(if $(SHORT),--short)

clean:
	rm -rf build dist *.egg-info pymlp/*.so $(VENV)/.built $(VENV)/.requirements
