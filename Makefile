# make demo    export the shipped model, build the best engine here, run it on photographs, print a benchmark
# make test    install what the tests need and run the fast ones (MARK= runs the slow ones too)
# make check   format, lint, types, tests: the same at a desk and in CI
# Each creates .venv by itself; the only needs are Python 3.11 and a C++ compiler.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
MARK ?= not slow
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(shell find cpp -type f 2>/dev/null)

# make native  libmvde alone, into mvde/lib, with its own tests (CTest)
native:
	cmake -S . -B build/native -DCMAKE_BUILD_TYPE=Release -DMVDE_BUILD_TESTS=ON -DMVDE_WERROR=ON
	cmake --build build/native --parallel 2
	ctest --test-dir build/native --output-on-failure
	install -D build/native/cpp/libmvde.so mvde/lib/libmvde.so

.PHONY: native demo test check format-check lint types format train-nano clean

demo: $(VENV)/.demo
	$(BIN)/mvde export --res native --res 896 --out demo/export
	$(BIN)/mvde build --export demo/export --out demo/engines
	$(BIN)/mvde run mvde/assets/photos --engines demo/engines --res 896 --out demo/out
	$(BIN)/mvde bench --engines demo/engines
	@echo "Depth, pictures and statistics are in demo/out"

test: $(VENV)/.test
	$(BIN)/python -m pytest -m "$(MARK)"

check: format-check lint types test

format-check: $(VENV)/.lint
	$(BIN)/ruff format --check .

lint: $(VENV)/.lint
	$(BIN)/ruff check .

types: $(VENV)/.lint $(VENV)/.test
	$(BIN)/mypy

format: $(VENV)/.lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: $(VENV)/bin/python $(SOURCES)
	$(PIP) --editable '.[export]'
	touch $@

$(VENV)/.test: $(VENV)/bin/python $(SOURCES)
	$(PIP) --editable '.[export,train,data,video]' --group test
	touch $@ $(VENV)/.demo

$(VENV)/.lint: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --group lint
	touch $@

clean:
	rm -rf demo build dist
