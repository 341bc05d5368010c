# Front door of the build. CMake and Ninja do the work; `make` alone says what there is to do.
BUILD_TYPE ?= Release
PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60
DEMO ?= temper-demo

.PHONY: help packages configure build demo test test-sanitize parity fuzz format install clean

help:
	@echo 'make demo            build, then plans/demo.yaml: defences against attackers, a table and a report'
	@echo 'make test            build, then every test'
	@echo 'make build           build/temper, the command line, and build/libtemper.a'
	@echo 'make test-sanitize   the tests again under AddressSanitizer and UndefinedBehaviorSanitizer'
	@echo 'make parity          compare with the reference programs, live (needs PYTHON=python3 with them)'
	@echo 'make fuzz            fuzz the readers with libFuzzer, FUZZ_SECONDS=60 for each (needs clang)'
	@echo 'make install         install below PREFIX=/usr/local'
	@echo 'make format          clang-format every source file'
	@echo 'make packages        install the Debian packages that the build needs and that are missing'
	@echo 'make clean           remove the build directories'
	@echo
	@echo 'make demo and make test work on a fresh Debian 12: they install missing packages first.'

packages:
	@tools/install-packages

configure: packages
	@cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=$(BUILD_TYPE) --log-level=NOTICE

build: configure
	cmake --build build -j $(JOBS)

# The demo needs the program alone, not the tests.
demo: configure
	cmake --build build -j $(JOBS) --target temper_cli
	build/temper run plans/demo.yaml --directory $(DEMO)
	@build/temper report plans/demo.yaml --directory $(DEMO) --out $(DEMO)/report --overwrite

test: build
	ctest --test-dir build --output-on-failure -j $(JOBS)

test-sanitize: packages
	cmake -S . -B build-sanitize -G Ninja -DCMAKE_BUILD_TYPE=Debug -DTEMPER_SANITIZE=ON --log-level=NOTICE
	cmake --build build-sanitize -j $(JOBS)
	ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1 \
	  ctest --test-dir build-sanitize --output-on-failure -j $(JOBS) -LE slow

# Each script compares one part with the Python reference; exit code 77 says that the reference or an input is absent.
PYTHON ?= python3
parity: build
	@failed=0; for script in tools/parity/*.py; do \
	  echo "== $$script"; $(PYTHON) $$script build; code=$$?; \
	  if [ $$code -eq 77 ]; then echo "SKIP: $$script"; elif [ $$code -ne 0 ]; then failed=1; fi; \
	done; exit $$failed

fuzz:
	@tools/install-packages clang libomp-dev
	CC=clang cmake -S . -B build-fuzz -G Ninja -DCMAKE_BUILD_TYPE=Debug -DTEMPER_FUZZ=ON --log-level=NOTICE
	cmake --build build-fuzz -j $(JOBS) --target $(basename $(notdir $(wildcard tests/fuzz/fuzz_*.c)))
	tools/fuzz build-fuzz $(FUZZ_SECONDS)

format:
	@tools/install-packages clang-format
	clang-format -i $$(git ls-files '*.c' '*.h')

install: build
	cmake --install build --prefix $(PREFIX)

clean:
	rm -rf build build-sanitize build-fuzz
