# make demo, make test, make lint: each sets up its own .venv first, once.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
PIP    := $(BIN)/python -m pip --disable-pip-version-check -qq

# One thread each for torch and onnxruntime: two test workers share two cores, and medians stay comparable.
export OMP_NUM_THREADS ?= 1
# No GPU? TORCH_INDEX=https://download.pytorch.org/whl/cpu gets wheels of a tenth of the size.
TORCH_INDEX ?=

.PHONY: demo web test test-tensorrt test-aarch64 test-web lint native setup clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo   compress the trained LMUFormer for a Jetson, into runs/"
	@echo "make test   the tests"
	@echo "make test-aarch64  the C++ runner and the NEON kernels cross-compiled and emulated (needs aarch64-linux-gnu-g++, qemu-user-static)"
	@echo "make web    the browser demo, into examples/web_kws/dist/ (needs node and npm)"
	@echo "make test-web  its tests (npm packages from the registry; chromium for those in a browser)"
	@echo "make lint   ruff, mypy --strict, import floors"
	@echo "make native build the operator library (needs gcc or clang), into build/native/"
	@echo "make test-tensorrt  real builds with TensorRT-RTX on this processor (installs it, 230 MB)"
	@echo "make setup  only the .venv (PYTHON=python3.12 chooses the interpreter)"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "edgetk: needs Python 3.11 or newer, got $$($(PYTHON) --version); run: make PYTHON=python3.12" >&2; exit 2; }
	@echo "setting up $(VENV) (a few minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt setuptools
	@$(PIP) install $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt torch==2.13.0
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

setup: $(STAMP)

demo: $(STAMP)
	@$(BIN)/edgetk compress --model lmuformer --target jetson -o runs

test: $(STAMP)
	@$(BIN)/python -m pytest -n 2 -rs

# ONNX Runtime for aarch64, in the version that is pinned for this machine.
ARM_ORT := .cache/onnxruntime-aarch64
$(ARM_ORT): $(STAMP)
	@$(PIP) install --no-deps --only-binary=:all: --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
	  --implementation cp --python-version 3.11 --target $@ -c constraints.txt onnxruntime
	@touch $@

test-aarch64: $(STAMP) $(ARM_ORT)
	@EDGETK_AARCH64_ORT=$$(echo $(CURDIR)/$(ARM_ORT)/onnxruntime/capi/libonnxruntime.so.*) $(BIN)/python -m pytest -rs tests/cpp/test_aarch64.py tests/export -k 'aarch64 or neon'

web: $(STAMP)
	@cd examples/web_kws && npm ci --loglevel=error --omit=dev && EDGETK_PYTHON=$(CURDIR)/$(BIN)/python node build.mjs

# Without npm the tests skip and say so.
test-web: $(STAMP)
	@if command -v npm >/dev/null; then cd examples/web_kws && npm ci --loglevel=error; fi
	@$(BIN)/python -m pytest -rs tests/web

test-tensorrt: $(STAMP)
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[tensorrt]'
	@$(BIN)/python -m pytest -rs tests/export/test_tensorrt_rtx.py

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/python -m pytest -p no:cacheprovider tests/test_floors.py

native:
	@$(MAKE) --no-print-directory -C edgetk/export/native OUT=$(CURDIR)/build/native

clean:
	@rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
