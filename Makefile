# Everything runs in .venv, which the first target that needs it makes. `make help` lists them.
PYTHON  ?= python3
VENV    ?= .venv
BENCH   ?= .venv-bench
INTEROP ?= .venv-interop
SCALE   ?= .venv-scale

BIN     = $(VENV)/bin
# Modules are compiled when they are imported: most of them never are, and all take a minute.
INSTALL = $(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt
TRAIN   = $(BIN)/maskedflow train --time_limit 90
# One thread each: networks as small as those of tests only wait for a second one.
# A file at a time, so that what its tests share is made once.
PYTEST  = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check wheel format docs interop scale bench flows tables examples clean

help: ## Show what can be made
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | \
		awk -F@ '{ printf "%-18s %s\n", $$1, $$2 }'

demo: $(VENV)/.base ## Train on digits and moons, and compare with a full Gaussian (minutes)
	$(TRAIN) --dataset digits
	$(TRAIN) --dataset moons

test: $(VENV)/.dev ## Run the tests and doctests, without the slow ones
	$(PYTEST)

test-slow: $(VENV)/.dev ## Run the slow tests
	$(PYTEST) -m slow

check: $(VENV)/.dev ## Lint, formatting, types and the layers of the design
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/circles.py

wheel: $(VENV)/.base ## Build the wheel, and use it away from the repository
	.ci/wheel $(BIN)/python

format: $(VENV)/.dev ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs ## Build the documentation into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

interop: $(INTEROP)/.stamp ## Run flows beside sbi, lampe, pocomc, Pyro and readers of chains (minutes), into docs/interop.txt
	OMP_NUM_THREADS=1 $(INTEROP)/bin/python -m pytest --no-header --disable-warnings -m "" tests/interop >docs/interop.txt; \
		status=$$?; cat docs/interop.txt; exit $$status

scale: $(SCALE)/.stamp ## Score, draw and search on local clusters of Ray, Spark and Dask (minutes, needs Java), into docs/scale.txt
	OMP_NUM_THREADS=1 $(SCALE)/bin/python -m pytest --no-header --disable-warnings -v -m "" \
		tests/interop/test_ray.py tests/interop/test_spark.py tests/interop/test_dask.py >docs/scale.txt; \
		status=$$?; cat docs/scale.txt; exit $$status

bench: $(BENCH)/.stamp ## Measure against zuko, nflows and flowjax, side by side (an hour)
	$(BENCH)/bin/python benchmarks/peers.py
	$(BENCH)/bin/python benchmarks/small.py
	$(BENCH)/bin/python benchmarks/scaling.py

flows: $(VENV)/.base ## Train all flows for the same time, and compare them (forty minutes, goes on where it was)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/flows.py

tables: $(BENCH)/.stamp ## Compare the default estimator of tables with seven methods and zuko (an hour, goes on where it was)
	OMP_NUM_THREADS=1 $(BENCH)/bin/python benchmarks/tables.py

examples: $(VENV)/.base ## Run every example, minutes each, and write its page's numbers and figures
	set -e; for example in examples/*.py; do echo $$example; $(BIN)/python $$example; done

clean: ## Remove .venv, caches and what the documentation built; never a run
	rm -rf $(VENV) $(BENCH) $(INTEROP) $(SCALE) build dist docs/_build docs/jupyter_execute
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src benchmarks tests docs -name __pycache__ -type d -exec rm -rf {} +

# A stamp stands for an installed set of requirements, and is older than what it was made from.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

$(VENV)/.dev $(VENV)/.docs: $(VENV)/.%: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[$*]'
	@touch $@ $(VENV)/.base

# Other libraries live apart. One install of them and of us, so that there is one torch for all.
$(BENCH)/.stamp: benchmarks/requirements.txt
$(INTEROP)/.stamp: tests/interop/requirements.txt
$(SCALE)/.stamp: tests/interop/scale-requirements.txt
$(BENCH)/.stamp $(INTEROP)/.stamp $(SCALE)/.stamp: %/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		$(patsubst %,-r %,$(filter %requirements.txt,$^)) -e .
	@touch $@
