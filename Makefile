# Two commands: `make demo` trains a small GPT, `make test` runs every test. Both install and build what is missing.
BUILD := build/release
JOBS  := $(shell nproc)
# Some tests wait: for a deadline, for a cut link.
TESTS := $(shell expr $(JOBS) + 1)

.PHONY: help setup build demo test test-all parity bench-peers bench-peers-comm bench-peers-step tsan asan ubsan format clean

help:
	@echo "make demo      install what is missing, build, train a small GPT with two workers (DATA=folder)"
	@echo "make test      install what is missing, build, run every test"
	@echo "make build     the program alone: $(BUILD)/trireme"
	@echo "make test-all  make test, and the sanitizers"
	@echo "make parity    train beside Debian's python3-torch and compare"
	@echo "make bench-peers  our collectives beside Gloo's own and OpenMPI's (bench-peers-comm, PEERS=options),"
	@echo "               our training step beside PyTorch's (bench-peers-step, STEP_PEERS=options)"
	@echo "make format    clang-format over the tree"

setup:
	@tools/setup.sh apt-packages.txt

$(BUILD)/build.ninja: | setup
	@cmake --preset release

build: setup $(BUILD)/build.ninja
	@cmake --build $(BUILD) --target trireme_program -j $(JOBS)

demo: build
	@tools/demo.sh $(BUILD)/trireme

test: setup $(BUILD)/build.ninja
	@cmake --build $(BUILD) -j $(JOBS)
	@ctest --test-dir $(BUILD) --output-on-failure -j $(TESTS) -LE long

test-all: test tsan asan ubsan
	@ctest --test-dir $(BUILD) --output-on-failure -L long

# The layers without LibTorch under a sanitizer.
tsan asan ubsan: setup
	@cmake --preset $@
	@cmake --build build/$@ -j $(JOBS)
	@ctest --test-dir build/$@ --output-on-failure -j $(JOBS) -L "unit|group"

parity: build
	@tools/setup.sh apt-packages-parity.txt
	@cmake --build $(BUILD) --target numerics_test -j $(JOBS)
	@/usr/bin/python3 tools/make_parity_golden.py --check tests/golden --program $(BUILD)/tests/numerics_test

# Ours beside other libraries. PEERS="--json --rounds 9" and STEP_PEERS="--json --dtype bf16" are options of
# peers_bench and of step_peers_bench (--help); each target alone runs one of them.
bench-peers:
	@$(MAKE) --no-print-directory bench-peers-comm
	@$(MAKE) --no-print-directory bench-peers-step

# About four minutes.
bench-peers-comm: build
	@cmake --preset release -DTRIREME_BENCH_PEERS=ON
	@cmake --build $(BUILD) --target peers_bench -j $(JOBS)
	@$(BUILD)/bench/peers/peers_bench --program $(BUILD)/trireme $(PEERS)

# About ten minutes on two idle cores.
bench-peers-step: build
	@tools/setup.sh apt-packages-parity.txt
	@cmake --preset release -DTRIREME_BENCH_PEERS=ON
	@cmake --build $(BUILD) --target step_peers_bench -j $(JOBS)
	@$(BUILD)/bench/peers/step_peers_bench --program $(BUILD)/trireme $(STEP_PEERS)

format:
	@tools/format.sh --fix

clean:
	@rm -rf build
