# make venv   an environment in .venv with everything that the other targets need
# make demo   the main job: what sum, mean and max can see; DATA="MUTAG Mutagenicity" for TU sets
# make test   the test suite
# make lint   ruff and mypy
PYTHON ?= python3
DATA ?= rings
BIN := .venv/bin
SETUP := .venv/.installed

.PHONY: venv demo test lint clean

venv: $(SETUP)

# torch comes first and pinned, so that no other package pulls another build of it.
$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dask,experiments,test]"
	touch $@

demo: $(SETUP)
	$(BIN)/python -m experiments demo $(addprefix --data ,$(DATA))

test: $(SETUP)
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build dist results *.egg-info .pytest_cache .mypy_cache .ruff_cache
