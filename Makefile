# make venv      an environment in .venv with everything that the other targets need, and the native core
# make core      the native core alone, built from csrc/ as far as that has changed
# make demo      the main job: what sum, mean and max can see; DATA="MUTAG Mutagenicity" for TU sets
# make test      the test suite; TESTS="tests/readouts/nn" for a part of it
# make thorough  the tests that take long
# make docs      the documentation site in build/site
# make lint      ruff and mypy
# make counts    what the GPU kernels execute, counted by an emulator, and predicted times, in docs/gpu.md
# make sanitize  the tests of the core under the address, undefined behaviour and thread sanitizers
# make arm       the tests of the core on 64-bit Arm, emulated
MAKEFLAGS += --no-print-directory
PYTHON ?= python3
DATA ?= rings
CORES := $(shell getconf _NPROCESSORS_ONLN 2> /dev/null || echo 2)
BIN := .venv/bin
SETUP := .venv/.installed
CORE := readouts/kernels/native/libreadouts_core.so
# Threads that wait for work must not keep the other test process from the core.
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n auto --dist worksteal
CTEST := ctest --output-on-failure --test-dir

.PHONY: venv core demo test thorough docs lint counts sanitize arm clean

venv: $(SETUP) $(CORE)

core: $(CORE)

# torch comes first and pinned, so that no other package pulls another build of it.
$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dask,docs,experiments,test]"
	touch $@

# What does not configure is left out, as by pip: plain PyTorch serves. What does not compile is an error.
$(CORE): csrc/CMakeLists.txt $(wildcard csrc/*.cpp csrc/*.h)
	@mkdir -p build
	@if cmake -S csrc -B build/core -DREADOUTS_TESTS=ON > build/core.log 2>&1; then \
	    cmake --build build/core --parallel $(CORES) && cmake --install build/core --prefix . > /dev/null && touch $@; \
	else \
	    echo "the native core is not built: CMake or a C++ compiler is missing (build/core.log); plain PyTorch serves"; \
	fi

demo: $(SETUP) $(CORE)
	$(BIN)/python -m experiments demo $(addprefix --data ,$(DATA))

test: $(SETUP) $(CORE)
	$(PYTEST) $(TESTS)

thorough: $(SETUP) $(CORE)
	$(PYTEST) -m thorough

docs: $(SETUP) $(CORE)
	@rm -rf build/site
	PYTHONPATH=$(CURDIR) OMP_WAIT_POLICY=passive $(BIN)/python -m sphinx -q -W --keep-going -c docs -d build/doctrees . build/site
	@echo "open build/site/index.html"

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

counts: $(SETUP) $(CORE)
	PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python -m emulated.counts docs/gpu.md

sanitize:
	cmake -S csrc -B build/address -DREADOUTS_TESTS=ON -DREADOUTS_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=Debug
	cmake --build build/address --parallel $(CORES) --target test_core
	$(CTEST) build/address
	cmake -S csrc -B build/thread -DREADOUTS_TESTS=ON -DREADOUTS_SANITIZE=thread -DCMAKE_BUILD_TYPE=RelWithDebInfo
	cmake --build build/thread --parallel $(CORES) --target test_core
	$(CTEST) build/thread

arm:
	@if command -v aarch64-linux-gnu-g++ > /dev/null && command -v qemu-aarch64 > /dev/null; then \
	    cmake -S csrc -B build/arm -DREADOUTS_TESTS=ON --toolchain $(CURDIR)/csrc/tests/aarch64.cmake && \
	    cmake --build build/arm --parallel $(CORES) --target test_core && $(CTEST) build/arm; \
	else \
	    echo "skipped: make arm needs the Debian packages g++-aarch64-linux-gnu and qemu-user"; \
	fi

clean:
	rm -rf .venv build dist results *.egg-info .pytest_cache .mypy_cache .ruff_cache $(CORE)
