# Each target sets up .venv itself when needed: on a fresh machine `make demo` alone, or `make test` alone, is enough.
# Two stamps, one environment: .venv/.base is what the program needs, .venv/.dev adds training, Ray and the tools.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
PINS   := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-full check format tiny tiny-gpu ship-tiny pictures clean system-python system-compiler

help:
	@echo "make demo      six prompts in six languages -> faces-out/demo (installs what it needs)"
	@echo "make test      every test that needs no GPU"
	@echo "make test-full those that take minutes as well: killed workers, a real head"
	@echo "make check     ruff, mypy, import-linter"
	@echo "make tiny      train every network of the preset tiny, in order, on this machine"
	@echo "make tiny-gpu  the same on a machine with a GPU, in calls of under ten minutes"
	@echo "make ship-tiny put what make tiny finished (or FROM=out/tiny) into the package, once it is whole"
	@echo "make pictures  draw the pictures of the README again"
	@echo "make clean     remove what these targets made, .venv too"

# -- what must come from the system: named with its remedy, before anything is downloaded
system-python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: $(PYTHON): not found; needed: Python 3.11 or newer; apt-get install python3 python3-venv" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON): is $$($(PYTHON) -V); needed: Python 3.11 or newer; make PYTHON=python3.11 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON): has no venv module; needed: venv; apt-get install python3-venv" >&2; exit 2; }

system-compiler:
	@command -v $${CXX:-g++} >/dev/null || { \
	  echo "error: g++: not found; needed: a C++ compiler for DeepSpeed; apt-get install g++" >&2; exit 2; }

$(VENV)/.base: $(PINS) | system-python
	@echo "setting up $(VENV) (once; several minutes)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(PINS) | system-python system-compiler
	@echo "setting up $(VENV) with the tools (once; several minutes)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PIP) -e '.[ray,train,dev]'
	@touch $@ $(VENV)/.base

# -- the targets
demo: $(VENV)/.base
	@$(PY) -m m3face.cli demo --out faces-out/demo

test: $(VENV)/.dev | system-compiler
	@$(PY) -m pytest -q -m "not gpu and not full" --durations=10

test-full: $(VENV)/.dev | system-compiler
	@$(PY) -m pytest -q -m "not gpu" --durations=20

check: $(VENV)/.dev
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports --no-logo

format: $(VENV)/.dev
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

tiny: $(VENV)/.base
	@set -e; for name in text_encoder map_vq landmark_vq transformer vae latent_reader unet \
	  parser landmark_detector attribute_classifier identity_embedder; do \
	  echo "== $$name"; $(PY) -m m3face.cli train --config jobs/configs/tiny_$$name.yaml; done

tiny-gpu: $(VENV)/.base
	@$(PY) jobs/tiny_gpu.py --out out/tiny

ship-tiny: $(VENV)/.base
	@$(PY) jobs/ship_tiny.py $(FROM)

pictures: $(VENV)/.base
	@$(PY) docs/pictures/make.py

clean:
	rm -rf $(VENV) build dist faces-out out runs cache htmlcov .coverage .pytest_cache .mypy_cache .ruff_cache \
	  .import_linter_cache platform/m3face.egg-info
	find platform tests -name __pycache__ -type d -prune -exec rm -rf {} +
