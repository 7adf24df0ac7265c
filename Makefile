# make demo: the method on a synthetic heart, from a fresh machine. make test: every check we have.
# make bench: every benchmark, then the documents' tables and figures; goes on where it was stopped.
# All need Python >= 3.11 and a C compiler, and set up an environment of their own in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The library has threads of its own; BLAS threads beside them only get in the way.
export OPENBLAS_NUM_THREADS = 1

# Some tools (cython-lint) start others by name.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Tests that run every kernel; they run a second time with every index checked.
KERNEL_TESTS := $(addprefix tests/,compute transforms registration slice_motion fusion \
  atlases/test_ranking.py phantoms/test_hearts.py refinement/test_refine.py anatomy/test_topology.py)

.PHONY: demo test bench bench-quick clean

demo: $(INSTALLED)
	$(BIN)/cardiacreg demo -o demo_output --overwrite

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cython-lint cardiacreg
	$(BIN)/python -m pytest -n 2
	NUMBA_BOUNDSCHECK=1 $(BIN)/python -m pytest -n 2 $(KERNEL_TESTS)

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks all
	$(BIN)/python -m benchmarks report

bench-quick: $(INSTALLED)
	$(BIN)/python -m benchmarks all --quick --json bench_output/quick

$(INSTALLED): pyproject.toml setup.py constraints-test.txt $(wildcard cardiacreg/*/*.pyx)
	$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
	  'cardiacreg needs Python >= 3.11, this is ' + sys.version.split()[0] + \
	  '; try for instance: make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints-test.txt -e ".[dev]"
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) build demo_output
