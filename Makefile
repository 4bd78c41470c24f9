PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test install lint clean

install: $(STAMP)

# one environment with everything; -c pins the set that is tested together
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt "setuptools>=77,<82" wheel
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e ".[eval,dev]"
	$(BIN)/python -m pip install -q -c constraints.txt -r tests/oracles.txt || \
		echo "note: an oracle package did not install; the tests that compare with it will be skipped"
	@# compile the coder's loops once, here rather than in front of the first file
	$(BIN)/python -c "import latentzip as lz, numpy as np; lz.decode(lz.encode(np.zeros((64, 64, 3), np.uint8)))"
	touch $(STAMP)

demo: install
	$(BIN)/python scripts/demo.py --out demo

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf $(VENV) build dist demo *.egg-info src/*.egg-info
