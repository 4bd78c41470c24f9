PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-all install lint docs fuzz soak clean

install: $(STAMP)

# one environment with everything; -c pins the set that is tested together
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt "setuptools>=77,<82" wheel
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e ".[eval,dev]"
	@# meanwhile the coder's loops are compiled, once, rather than in front of the first file
	$(BIN)/python -c "import latentzip as lz, numpy as np; x = np.zeros((2048, 3072, 3), np.uint8); \
		lz.decode(lz.encode(x[:64, :64])); z = lz.encode(x, codec='walloc-rgb-linear'); \
		lz.decode(z, to='latent'); lz.decode(z, region=(0, 0, 64, 64))" & \
	$(BIN)/python -m pip install -q -c constraints.txt -r tests/oracles.txt || \
		echo "note: an oracle package did not install; the tests that compare with it will be skipped"; \
	wait $$! || echo "note: loops are compiled when they are first needed"
	touch $(STAMP)

demo: install
	$(BIN)/python scripts/demo.py --out demo

# a worker a core, each with one thread: most tests are one thread's work
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -lt 8 ] && echo $$n || echo 8)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test: install
	$(PYTEST)

# with everything that tests can use (Chromium has to be there); a skip for want of anything but a GPU is a failure
test-all: install
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e ".[all]" "transformers>=4.50" "timm>=1.0"
	LATENTZIP_NO_SKIPS=1 $(PYTEST)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# the documentation as a site of plain files; broken links and pages that the menu lacks are errors
docs: install
	$(BIN)/python -m pip install -q -c constraints.txt mkdocs mkdocs-material "mkdocstrings[python]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

# damaged files of every format with repaired checksums: make fuzz SECONDS=60 SEED=7
SECONDS ?= 600
SEED ?= 0
fuzz: install
	$(BIN)/python scripts/fuzz.py --seconds $(SECONDS) --seed $(SEED)

# an hour of epochs over a pack: memory and open files stay flat
soak: install
	$(BIN)/python scripts/soak.py --seconds 3600

clean:
	rm -rf $(VENV) build dist demo site *.egg-info src/*.egg-info
