# PEFT Lab. `make` alone lists what there is to do; `make lab` is where a learner starts.
#
#   make lab PYTHON=python3.12     use another Python (3.11 to 3.14)
#   make lab TORCH=gpu             the CUDA build of torch, whatever set-up finds (or: cpu)
#   make lab LAB_ARGS=--no-browser pass options to JupyterLab
#   make notebooks NAMES=06_lora   build one lesson

# The first Python on the path that is new enough; if none is, set-up says what to do.
PYTHON ?= $(or $(shell for python in python3 python3.13 python3.12 python3.14 python3.11 python; do \
    "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
    2>/dev/null && { echo "$$python"; break; }; done),python3)
VENV ?= .venv
TORCH ?= auto
LAB_ARGS ?=
NAMES ?=

BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
SETUP = $(PYTHON) tools/setup_env.py --venv "$(VENV)" --torch $(TORCH)

# The same for a learner, the builds and the tests, so that outputs agree.
export PYTHONWARNINGS = ignore
export PYTHONHASHSEED = 0
export TOKENIZERS_PARALLELISM = false
# Threads that wait give way: on a busy machine, spinning ones made a lesson several times slower.
export OMP_WAIT_POLICY = PASSIVE

.DEFAULT_GOAL := help
.PHONY: help lab test notebooks book check clean

help:
	@echo "make lab        set up and open JupyterLab on the first lesson"
	@echo "make test       set up and run all tests"
	@echo "make check      set up, compare each lesson with its notebook, lint (seconds)"
	@echo "make notebooks  set up and rebuild the notebooks from notebooks/*.py"
	@echo "make book       set up and build the website in book/_build/html (no network)"
	@echo "make clean      remove the environment and caches (never your work/)"

lab:
	@$(SETUP)
	@"$(BIN)/python" -m peftlab.course.workspace $(LAB_ARGS)

# Tests and builds never ask a model hub; a learner may.
test notebooks book: export HF_HUB_OFFLINE = 1

test: check
	"$(BIN)/python" -m pytest --nbval --nbval-current-env --nbval-cell-timeout=300 \
	    --nbval-sanitize-with=tests/nbval_sanitize.cfg tests $(wildcard notebooks)

notebooks:
	@$(SETUP)
	"$(BIN)/python" -m peftlab.course.notebooks build $(NAMES)

book:
	@$(SETUP)
	"$(BIN)/python" -m peftlab.course.site build

check:
	@$(SETUP)
	"$(BIN)/python" -m peftlab.course.notebooks check
	"$(BIN)/python" -m peftlab.course.lessons check
	"$(BIN)/python" -m ruff check .

clean:
	rm -rf "$(VENV)" "$(VENV).lock" "$(VENV).log" build book/_build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './work/*' -prune -exec rm -rf {} +
