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

.PHONY: demo test lint native setup clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo   compress the trained LMUFormer for a Jetson, into runs/"
	@echo "make test   the tests"
	@echo "make lint   ruff, mypy --strict, import floors"
	@echo "make native build the operator library (needs gcc or clang), into build/native/"
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

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/python -m pytest -p no:cacheprovider tests/test_floors.py

native:
	@$(MAKE) --no-print-directory -C edgetk/export/native OUT=$(CURDIR)/build/native

clean:
	@rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
