# make demo: the method on a synthetic heart, from a fresh machine, with the library and its viewer.
# make test: every check we have. make quick: lint and a few tests, in less than a minute.
# make docs: the documentation site, with the gallery's examples run.
# make bench: every benchmark, then the documents' tables and figures; goes on where it was stopped.
# All need Python >= 3.11 and a C compiler. The demo sets up an environment of its own in .venv-demo, the
# others share one with the tools of development, torch among them, in .venv. Of the demo's, most is LLVM for
# Numba and SciPy; modules are compiled when they are first imported, tests of others' packages go, and so does
# what the viewer brings along for notebooks and a page does not use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO_VENV := .venv-demo
DEMO_BIN := $(DEMO_VENV)/bin
DEMO_INSTALLED := $(DEMO_VENV)/.installed
NOT_FOR_A_PAGE := jedi parso widgetsnbextension jupyterlab_widgets setuptools
BEGAN := $(shell date +%s)
BUILT_FROM := pyproject.toml setup.py constraints-test.txt $(wildcard cardiacreg/*/*.pyx)

# The library has threads of its own; BLAS threads beside them only get in the way.
export OPENBLAS_NUM_THREADS = 1

# Some tools (cython-lint) start others by name.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Tests that run every kernel; they run a second time with every index checked.
KERNEL_TESTS := $(addprefix tests/,compute/test_decompositions.py compute/test_lbfgs.py transforms registration \
  slice_motion fusion atlases/test_scoring_points.py refinement/test_refine.py)

# A worker runs tests that stand together, which share what they are given, and helps where it is done.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

# Once and side by side, before two processes would compile the same kernels.
COMPILE := $(BIN)/python -c "from cardiacreg.compute.preparation import compile_kernels as c; c(2)"

# Geometry, errors, the rules of the code, files there and back, and one refinement of the tiny heart.
QUICK_TESTS := $(addprefix tests/,test_geometry.py test_architecture.py test_make.py io/test_nifti.py \
  results/test_files.py results/test_guards.py anatomy/test_label_presets.py)
NOT_QUICK := "not slow and not TestLightImport and not after_refinements"

# Checks the version of Python and makes an environment.
define new_environment
	$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
	  'cardiacreg needs Python >= 3.11, this is ' + sys.version.split()[0] + \
	  '; try for instance: make PYTHON=python3.12')"
	$(PYTHON) -m venv $(1)
endef

.PHONY: demo lint test quick docs bench bench-quick sbom clean

demo: $(DEMO_INSTALLED)
	@ready=$$(date +%s); $(DEMO_BIN)/cardiacreg demo -o demo_output --overwrite && \
	echo "make demo: $$((ready - $(BEGAN))) s to install $$(du -sm $(DEMO_VENV) | cut -f1) MB," \
	  "then $$(($$(date +%s) - ready)) s for the demo"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cython-lint cardiacreg

test: lint
	$(COMPILE)
	$(PYTEST)
	NUMBA_BOUNDSCHECK=1 $(COMPILE)
	NUMBA_BOUNDSCHECK=1 $(PYTEST) $(KERNEL_TESTS)

quick: lint
	$(BIN)/python -m pytest -n 2 -q -k $(NOT_QUICK) $(QUICK_TESTS)

docs: $(INSTALLED)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "make docs: open docs/_build/html/index.html"

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks all
	$(BIN)/python -m benchmarks report

bench-quick: $(INSTALLED)
	$(BIN)/python -m benchmarks all --quick --json bench_output/quick

$(INSTALLED): $(BUILT_FROM)
	$(call new_environment,$(VENV))
	$(BIN)/python -m pip install -q -c constraints-test.txt -e ".[dev]"
	touch $(INSTALLED)

$(DEMO_INSTALLED): $(BUILT_FROM)
	$(call new_environment,$(DEMO_VENV))
	$(DEMO_BIN)/python -m pip install -q --no-compile -c constraints-test.txt -e ".[report]"
	$(DEMO_BIN)/python -m pip uninstall -q -y $(NOT_FOR_A_PAGE)
	find $(DEMO_VENV)/lib/python3*/site-packages -type d -name tests -prune -exec rm -rf {} +
	touch $(DEMO_INSTALLED)

# What the demo's environment holds, as CycloneDX; the release makes one of every wheel.
sbom: $(DEMO_INSTALLED)
	$(PYTHON) -m venv .venv-sbom
	.venv-sbom/bin/pip install -q cyclonedx-bom
	.venv-sbom/bin/cyclonedx-py environment --output-reproducible -o sbom.cdx.json $(DEMO_BIN)/python

clean:
	rm -rf $(VENV) $(DEMO_VENV) .venv-sbom sbom.cdx.json build demo_output
