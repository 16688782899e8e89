# `make demo` trains a style and applies it; `make test` runs the tests. Both set up what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Each of the tests' processes loads PyTorch, and takes a core and a gigabyte; one of them mostly
# waits for the programs that it started.
WORKERS ?= 3
PHOTO ?= $(shell $(BIN)/python -c "import importlib.util as u, pathlib as p; print(p.Path(u.find_spec('skimage').origin).parent / 'data' / 'astronaut.png')")

.PHONY: demo test test-fast check docs web clean

demo: $(VENV)/demo
	$(BIN)/python scripts/train.py --config configs/quickstart.yaml
	$(BIN)/python scripts/stylize.py --model quickstart --overwrite "$(PHOTO)" -o checkpoints/quickstart/astronaut.jpg

test: $(VENV)/dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# The tests of single modules, and of numbers that must not change: without whole programs.
test-fast: $(VENV)/dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" tests/unit tests/golden

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The pages that are made of the code and of the model files.
docs: $(VENV)/dev
	$(BIN)/python -m fast_style.config.reference docs/config.md
	$(BIN)/python scripts/cards.py docs/models.md

# The page that paints in a browser: fast-style serve shows it, and so does any static host.
web: $(VENV)/dev
	$(BIN)/python scripts/page.py -o build/web

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo $(VENV)/dev: $(VENV)/%: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
