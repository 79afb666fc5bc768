# make demo    export the bundled model, build the fastest engine for this machine, run it on photographs, print a benchmark
# make vlm-demo  train a tiny vision-language model with depth on rendered rooms, and ask it about one (minutes)
# make test    install the test dependencies and run the fast tests (MARK= also runs the slow ones), C++ and Python
# make test-extended  tests that take minutes: every family of models in every engine, the commands of every page
# make standing-checks  fault injection: publishing, manifests, live files, processes, inputs; under five minutes
# make soak    20,000 frames in Python and in C++; fails if memory grows
# make test-oldest  the same tests on the lowest versions that pyproject.toml allows, in .venv-oldest
# make constraints  rewrite constraints.txt (RENEW="--upgrade-package onnx" or RENEW=--upgrade for newer versions)
# make docs    build the manual as a site in build/site; a broken link or reference fails
# make check   formatting, linting, types and tests, as run by CI
# make dist    build the source distribution and the wheel with OpenVINO's backend into dist/; check and install each
# make dist-aarch64  build the wheel for 64-bit ARM into dist/, cross-compiled (apt install g++-aarch64-linux-gnu)
# make ros     build, test and install the ROS 2 package's core against libmvde (apt install ament-cmake ament-cmake-googletest)
# make native  build libmvde into mvde/lib and test it with CTest,
#              with the OpenVINO backend if Python's openvino is installed
# make native-debug     libmvde's tests without optimisation, which hides some defects (duplicate class definitions)
# make native-sanitize  libmvde's tests under AddressSanitizer with UBSan, those with threads under ThreadSanitizer
# make native-aarch64   libmvde's tests of code for NEON, under qemu (apt install g++-aarch64-linux-gnu qemu-user)
# make native-fuzz      fuzz the manifest parser, sessions and arguments for 30 s each (apt install clang)
# make nano            train the bundled model: render its frames, then four runs (hours); resumes after interruption
# make nano-gpu        train a model like it on a GPU that renders its frames, in MINUTES=6, from KIT=kit if there is one
# make nano-gpu-kit    collect wheels, OpenGL loaders and textures into kit/, for a GPU machine without a network
# Each target creates .venv if needed. Prerequisites: Python 3.11 and a C++ compiler.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
# pip compiles the modules one after another; $(COMPILE) does it on all cores.
PIP := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt
COMPILE := $(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null || true  # some packages carry files for Python 2
# With ccache, builds of one configuration compile once: that of `make native` also serves the tests of installations.
export CMAKE_CXX_COMPILER_LAUNCHER ?= $(shell command -v ccache)
CMAKE := $(BIN)/cmake -S . -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja
MARK ?= not slow and not extended
# Processes that share the tests, in Python a file at a time; many tests use two cores themselves.
WORKERS ?= 2
CTEST := $(BIN)/ctest --parallel $(WORKERS) --output-on-failure
BUILD := build/native
# Folder of OpenVINO's CMake files; empty if the package is not installed.
OPENVINO_DIR = $(shell $(BIN)/python -c "import importlib.util as u; s = u.find_spec('openvino'); \
    print(s.submodule_search_locations[0] + '/cmake' if s else '')" 2>/dev/null)
CPP_SOURCES := CMakeLists.txt $(shell find cpp tests/cpp -type f)
CLANG_FORMATTED = $(shell find cpp ros tests -name '*.[ch]' -o -name '*.[ch]pp' -o -name '*.cu' -o -name '*.cuh')

.PHONY: nano nano-gpu nano-gpu-kit demo vlm-demo test test-extended standing-checks soak test-oldest constraints docs check native native-test native-debug native-sanitize native-aarch64 native-fuzz dist dist-aarch64 ros format-check lint types format clean

demo: $(VENV)/.demo mvde/lib/libmvde.so
	$(BIN)/mvde export --res 192 --res 896 --out demo/export
	$(BIN)/mvde build --export-dir demo/export --out demo/engines
	$(BIN)/mvde run mvde/assets/photos --engine-dir demo/engines --res 192 --out demo/depth
	$(BIN)/mvde bench --engine-dir demo/engines
	@echo "Depth, pictures and statistics are in demo/depth"

vlm-demo: $(VENV)/.vlm-demo mvde/lib/libmvde.so
	$(BIN)/python benchmarks/vlm_demo.py --out build/vlm-demo

test: $(VENV)/.test mvde/lib/libmvde.so native-test
	$(BIN)/python -m pytest -m "$(MARK)" -n $(WORKERS) --dist loadfile

test-extended: $(VENV)/.test mvde/lib/libmvde.so
	$(BIN)/python -m pytest -m extended

standing-checks: $(VENV)/.test mvde/lib/libmvde.so
	$(BIN)/python -m pytest -m standing

soak: $(VENV)/.test mvde/lib/libmvde.so
	$(BIN)/mvde export --res 192 --out build/soak/export
	$(BIN)/mvde build --engine openvino:fp32 --threads 1 --export-dir build/soak/export --out build/soak/engines
	$(BIN)/python benchmarks/soak.py build/soak/engines/nano-192x192-openvino-fp32 --native $(BUILD)/tests/cpp/soak

# Lowest versions of direct dependencies, newest of theirs. Runs in a copy of the checkout, since libmvde's OpenVINO
# backend is built for one release. On x86-64, PyPI's wheels of torch 2.9 bring CUDA (4 GB); UV_TORCH_BACKEND=cpu takes
# PyTorch's CPU wheels if its index can be reached. With OLDEST_PYTHON=python3.10 the tests of int8 graphs fail: ONNX
# Runtime 1.23, the last for that Python, has no 8-bit operators of opset 23.
OLDEST_PYTHON ?= $(PYTHON)
OLDEST_VENV := $(abspath .venv-oldest)
OLDEST_PIP := $(OLDEST_VENV)/bin/uv pip install --quiet --system-certs --python $(OLDEST_VENV) --resolution lowest-direct --upgrade

test-oldest:
	$(MAKE) $(OLDEST_VENV)/bin/uv VENV=$(OLDEST_VENV) PYTHON=$(OLDEST_PYTHON)
	rm -rf build/oldest && mkdir -p build/oldest
	git ls-files -z --cached --others --exclude-standard | tar -c --null --ignore-failed-read -T - | tar -x -C build/oldest
	$(MAKE) -C build/oldest test VENV=$(OLDEST_VENV) PIP="$(OLDEST_PIP)"

# For all Python versions and platforms. Pinned versions are kept unless RENEW says otherwise.
constraints: $(BIN)/uv
	mkdir -p build && cp constraints.txt build/
	$(BIN)/uv pip compile --quiet --system-certs --universal --python-version 3.10 --no-header --no-annotate $(RENEW) \
	    pyproject.toml --extra export --extra train --extra data --extra video --extra vlm --extra ros --extra live --extra rerun --extra bulk --extra ray \
	    --group build --group test --group lint --group docs --group dist --output-file build/constraints.txt >/dev/null
	{ grep '^#' constraints.txt; grep -v '^#' build/constraints.txt; } > build/constraints.new
	mv build/constraints.new constraints.txt

check: format-check lint types test

native: mvde/lib/libmvde.so native-test

native-test: $(BUILD)/.built
	$(CTEST) --test-dir $(BUILD)

mvde/lib/libmvde.so: $(BUILD)/.built
	install -D $(BUILD)/cpp/libmvde.so $@
	if [ -f $(BUILD)/cpp/libmvde_openvino.so ]; then install $(BUILD)/cpp/libmvde_openvino.so $(@D)/; fi

# The test dependencies include OpenVINO, so rebuild with its backend once they are installed.
$(BUILD)/.built: $(VENV)/.build $(CPP_SOURCES) $(wildcard $(VENV)/.test)
	$(CMAKE) -B $(BUILD) -DCMAKE_BUILD_TYPE=Release -DMVDE_BUILD_TESTS=ON -DMVDE_WERROR=ON \
	    -DMVDE_VERSIONED_SONAME=OFF -DMVDE_BUILD_EXAMPLES=ON $(if $(OPENVINO_DIR),-DMVDE_BUILD_OPENVINO=ON -DOpenVINO_DIR=$(OPENVINO_DIR))
	$(BIN)/cmake --build $(BUILD)
	touch $@

native-debug: $(VENV)/.build
	$(CMAKE) -B build/debug -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG="-O0 -g1" \
	    -DMVDE_BUILD_TESTS=ON -DMVDE_WERROR=ON -DSIMDE_INCLUDE_DIR=
	$(BIN)/cmake --build build/debug
	$(CTEST) --test-dir build/debug

# ThreadSanitizer runs what has threads.
THREADED := test_threads test_forks test_session test_async test_live_file test_shared_depth
native-sanitize: $(VENV)/.build
	for kind in address,undefined thread; do build=build/sanitize-$${kind%%,*}; \
	    tests=$$([ $$kind = thread ] && echo $(THREADED) || true); \
	    $(CMAKE) -B $$build -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG="-O1 -g1" \
	        -DMVDE_BUILD_TESTS=ON -DMVDE_SANITIZE=$$kind -DSIMDE_INCLUDE_DIR= && \
	    $(BIN)/cmake --build $$build $${tests:+--target $$tests} && \
	    $(CTEST) --test-dir $$build $${tests:+-R "^($$(echo $$tests | tr ' ' '|'))$$"} || exit 1; \
	done

# What has code of its own for NEON, and its bounds; the rest of libmvde is the same code as elsewhere.
ARM_TESTS := test_kernels test_bounds test_conversions test_masks test_points test_scan test_float_environment
native-aarch64: $(VENV)/.build
	$(CMAKE) -B build/aarch64 --toolchain cpp/cmake/aarch64-linux-gnu.cmake -DMVDE_BUILD_TESTS=ON -DMVDE_WERROR=ON
	$(BIN)/cmake --build build/aarch64 --target mvde $(ARM_TESTS)
	$(CTEST) --test-dir build/aarch64 -R '^($(subst $(eval ) ,|,$(ARM_TESTS)))$$'

# The node itself needs a ROS 2 workspace. ament's Python package is the system's.
ros: $(BUILD)/.built
	$(BIN)/cmake --install $(BUILD) --prefix build/ros/mvde
	$(BIN)/cmake -S ros/mvde_ros -B build/ros/build -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	    -DMVDE_ROS_NODE=OFF -DPython3_EXECUTABLE=/usr/bin/python3 \
	    -DCMAKE_PREFIX_PATH=$(abspath build/ros/mvde)
	$(BIN)/cmake --build build/ros/build
	$(BIN)/ctest --test-dir build/ros/build --output-on-failure --no-tests=error
	$(BIN)/cmake --install build/ros/build --prefix build/ros/mvde_ros

# The wheel is built from the source distribution. OpenVINO and its TBB come from the package openvino, never from the wheel:
# a process must load one of each.
FROM_OPENVINO := libopenvino.so.* libtbb.so.*

dist: $(VENV)/.dist
	rm -rf dist build/dist
	MVDE_WHEEL_OPENVINO=1 $(BIN)/python -m build --outdir build/dist
	PATH="$(abspath $(BIN)):$$PATH" auditwheel repair $(foreach library,$(FROM_OPENVINO),--exclude '$(library)') \
	    --wheel-dir dist build/dist/*.whl
	mv build/dist/*.tar.gz dist/
	! tar -tzf dist/*.tar.gz | grep -E '\.(so|o|a)$$|/build/'  # products of an earlier build
	$(BIN)/auditwheel show dist/*.whl
	$(BIN)/twine check --strict dist/*
	for file in dist/*.whl dist/*.tar.gz; do \
	    rm -rf build/dist/empty && $(PYTHON) -m venv build/dist/empty && \
	    build/dist/empty/bin/python -m pip install --quiet --no-compile --constraint constraints.txt "$$file[native]" && \
	    (cd build/dist && empty/bin/mvde doctor) || exit 1; \
	done

# The same wheel for 64-bit ARM; `bin/test_aarch64.sh` runs it in emulation. The release of OpenVINO is that of `native`.
ARM_OPENVINO := $(abspath build/aarch64-openvino)
dist-aarch64: $(VENV)/.dist
	rm -rf build/dist-aarch64 dist/*_aarch64.whl
	$(PIP) --upgrade --no-deps --only-binary=:all: --platform manylinux_2_35_aarch64 --python-version 3.11 --target $(ARM_OPENVINO) \
	    "$$(sed -n 's/^native = \["\(.*\)"\]/\1/p' pyproject.toml)"
	_PYTHON_HOST_PLATFORM=linux-aarch64 CMAKE_TOOLCHAIN_FILE=$(abspath cpp/cmake/aarch64-linux-gnu.cmake) \
	    $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/dist-aarch64 -C build-dir=build/aarch64-wheel \
	        -C cmake.define.MVDE_BUILD_OPENVINO=ON -C cmake.define.OpenVINO_DIR=$(ARM_OPENVINO)/openvino/cmake .
	PATH="$(abspath $(BIN)):$$PATH" auditwheel repair $(foreach library,$(FROM_OPENVINO),--exclude '$(library)') \
	    --wheel-dir dist build/dist-aarch64/*.whl
	$(BIN)/auditwheel show dist/*_aarch64.whl
	$(BIN)/twine check --strict dist/*_aarch64.whl

FUZZED := manifest session arguments
FUZZ_SECONDS ?= 30
# In memory if possible: each fuzzing iteration rewrites its folders.
FUZZ_TMPDIR := $(firstword $(wildcard /dev/shm /tmp))
CLANGXX ?= $(shell command -v clang++ || ls /usr/bin/clang++-[0-9]* 2>/dev/null | sort -V | tail -n 1)

# A crash leaves its input in build/fuzz. The corpus is kept there too, and the next run starts from it.
native-fuzz: $(VENV)/.build
	$(CMAKE) -B build/fuzz -DCMAKE_CXX_COMPILER=$(or $(CLANGXX),clang++) -DCMAKE_BUILD_TYPE=Debug \
	    -DCMAKE_CXX_FLAGS_DEBUG="-O1 -g1" -DMVDE_BUILD_FUZZERS=ON -DMVDE_SANITIZE=fuzzer-no-link,address,undefined
	$(BIN)/cmake --build build/fuzz
	rm -rf build/fuzz/seeds
	build/fuzz/tests/fuzz/make_seeds build/fuzz/seeds
	mkdir -p $(addprefix build/fuzz/corpus/,$(FUZZED))
	printf '%s\n' $(FUZZED) | xargs -P $(WORKERS) -I NAME env TMPDIR=$(FUZZ_TMPDIR) \
	    build/fuzz/tests/fuzz/fuzz_NAME -max_total_time=$(FUZZ_SECONDS) -timeout=20 -rss_limit_mb=2048 -max_len=8192 \
	        -dict=build/fuzz/seeds/manifest.dict -artifact_prefix=build/fuzz/ -print_final_stats=1 -verbosity=0 \
	        build/fuzz/corpus/NAME build/fuzz/seeds/NAME

nano: $(VENV)/.test mvde/lib/libmvde.so
	$(BIN)/mvde data synth --count 64000 --size 192x192 --seed 1 --out data/synth192
	$(BIN)/mvde data synth --count 153344 --size 160x160 --seed 3 --out data/synth160
	$(BIN)/mvde data synth --count 3072 --size 448x448 --seed 2 --out data/synth448
	$(BIN)/mvde data synth --count 512 --size 224x224 --seed 1000 --out data/eval224
	$(BIN)/mvde data synth --count 128 --size 896x896 --seed 1000 --out data/eval896
	$(BIN)/mvde train --config configs/nano.yaml --output_dir runs/nano
	$(BIN)/mvde train --config configs/nano-continue.yaml --output_dir runs/nano-continue
	$(BIN)/mvde train --config configs/nano-tokens.yaml --output_dir runs/nano-tokens
	$(BIN)/mvde train --config configs/nano-rooms.yaml --output_dir runs/nano-rooms

# On a bare machine: make nano-gpu GPU_PYTHON=python3. GPU_PYTHON has torch and what the kit's wheels brought.
GPU_PYTHON ?= $(BIN)/python
KIT ?= $(wildcard kit)
MINUTES ?= 6
nano-gpu:
	$(GPU_PYTHON) bin/nano_gpu.py $(if $(KIT),--kit $(KIT)) --minutes $(MINUTES) --out runs/nano-gpu

nano-gpu-kit: $(VENV)/.test
	$(BIN)/python bin/nano_gpu_kit.py --out kit

format-check: $(VENV)/.lint
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CLANG_FORMATTED)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/vulture

types: $(VENV)/.lint $(VENV)/.test
	$(BIN)/mypy

format: $(VENV)/.lint
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CLANG_FORMATTED)
	$(BIN)/ruff check --fix .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(BIN)/uv: | $(BIN)/python
	$(BIN)/python -m pip install --quiet uv

$(VENV)/.build: | $(BIN)/python
	$(PIP) --group build
	touch $@

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[export]'
	$(COMPILE)
	touch $@

$(VENV)/.vlm-demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[vlm,data]'
	$(COMPILE)
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[export,train,data,video,vlm,ros,live,rerun,bulk,ray]' --group test
	$(COMPILE)
	touch $@ $(VENV)/.demo

$(VENV)/.lint: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --group lint
	touch $@

$(VENV)/.dist: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --group dist
	touch $@

# make docs    the manual as a site in build/site; a broken link or reference fails
# Without PyTorch and the rest: the API is read from the source, and --help needs little.
.PHONY: docs
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --group docs
	touch $@

clean:
	rm -rf demo build dist mvde/lib
