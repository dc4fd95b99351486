# Tests: every tests/*/test_*.c is a cmocka program of its own, linked against the whole library; every
# tests/*/check_*.sh is a script that exits 0 or 1. `make check` runs all of them, `make test` sets up first.
TEST_SOURCES := $(wildcard tests/*/test_*.c)
TEST_PROGRAMS := $(patsubst %.c,$(BUILD)/%,$(TEST_SOURCES))
# Every tests/fuzz/fuzz_NAME.c is a libFuzzer target. `make fuzz` runs it under clang; `make check` runs corpus_NAME,
# the same target over the files of tests/fuzz/corpus/NAME/ without a fuzzer.
FUZZ_NAMES := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
TEST_PROGRAMS += $(FUZZ_NAMES:%=$(BUILD)/tests/fuzz/corpus_%)
TEST_SCRIPTS := $(wildcard tests/*/check_*.sh)
# Plug-ins that the loader must refuse with a clear sentence.
BAD_PLUGINS := $(patsubst tests/methods/bad/%.c,$(BUILD)/plugins/bad/%.so,$(wildcard tests/methods/bad/*.c))

# A plug-in whose option says what it gets wrong: what ./harness test must find.
BAD_PLUGINS += $(BUILD)/plugins/faults/faulty.so
$(BUILD)/plugins/faults/%.so: tests/methods/faults/%.c methods/method.h
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE $(WARN) -O2 -fPIC -shared -I. -o $@ $<

# Plug-ins that load and then break, each in its own way.
BROKEN_PLUGINS := $(patsubst tests/isolation/plugins/%.c,$(BUILD)/plugins/isolation/%.so,$(wildcard tests/isolation/plugins/*.c))
ifneq ($(CUDA_OBJECTS),)
BROKEN_PLUGINS += $(patsubst tests/isolation/gpu/%.c,$(BUILD)/plugins/isolation/gpu/%.so,$(wildcard tests/isolation/gpu/*.c))
endif

# What a program of the library is linked with, for checks that compile one.
.PHONY: print-libraries
print-libraries:
	@echo $(SANITIZE) $(CUDA_LIBS) $(LIBS)

test: deps ## install packages, build, run every test
	@$(MAKE) --no-print-directory -j$(JOBS) check

# Benchmarks and programs that scripts run. No tests by themselves; built with them, so that none is left behind.
TOOL_PROGRAMS := $(patsubst %.c,$(BUILD)/%,$(filter-out $(TEST_SOURCES) tests/fuzz/%,$(shell grep -l '^int main' tests/*/*.c)))

check: all $(TEST_PROGRAMS) $(TOOL_PROGRAMS) plugin-example $(BAD_PLUGINS) $(BROKEN_PLUGINS) ## run every test (nothing is installed)
	@BUILD=$(BUILD) bash tests/run.sh $(TEST_PROGRAMS) $(TEST_SCRIPTS)

$(BUILD)/tests/%: tests/%.c $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.c,$^) $(LIBRARY) $(CUDA_LIBS) -lcmocka $(LIBS)

# The operations' test bodies, shared by the tests of every backend.
KERNEL_SUITE := $(wildcard tests/kernels/suite*.c)
$(filter $(BUILD)/tests/kernels/%,$(TEST_PROGRAMS)): $(KERNEL_SUITE)

# The attention kernels against a double-precision reference: tests/gpu.sh runs it.
ifneq ($(CUDA_OBJECTS),)
$(BUILD)/tests/cuda/attention_bench: tests/cuda/attention_bench.cu tests/cuda/attention_cases.cu tests/cuda/attention_cases.cuh $(LIBRARY)
	@mkdir -p $(@D)
	$(NVCC) -O3 -std=c++17 $(CUDA_ARCH) -I. -o $@ $(filter %.cu,$^) $(LIBRARY) $(patsubst -pthread,-Xcompiler=-pthread,$(LIBS))
endif

# Programs of tests/methods load plug-ins; some compare with brute force on a recorded play.
$(patsubst %,$(BUILD)/tests/methods/test_%,estimates mac reuse selectors): tests/methods/recorder.c
# What tests/official/methods_compare.py plays our methods with; no test by itself.
$(BUILD)/tests/official/methods_play $(BUILD)/tests/official/mac_play: tests/methods/recorder.c
$(filter $(BUILD)/tests/methods/%,$(TEST_PROGRAMS)): | plugin-example $(BAD_PLUGINS)

$(BUILD)/plugins/bad/%.so: tests/methods/bad/%.c tests/methods/bad/bad.h methods/method.h
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) -O2 -fPIC -shared -I. -o $@ $<

$(BUILD)/plugins/isolation/%.so: tests/isolation/plugins/%.c tests/isolation/plugins/bad.h methods/method.h
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE $(WARN) -O2 -fPIC -shared -I. -o $@ $<

$(BUILD)/plugins/isolation/gpu/%.so: tests/isolation/gpu/%.c tests/isolation/gpu/kernels.cu tests/isolation/plugins/bad.h methods/method.h
	@mkdir -p $(@D)
	$(NVCC) -O2 $(CUDA_ARCH) -Xcompiler -fPIC -shared -I. -o $@ $(filter %.c %.cu,$^)

plugin-example: $(BUILD)/plugins/example.so ## build the out-of-tree example method
$(BUILD)/plugins/%.so: methods/examples/%.c methods/method.h
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) -O2 -fPIC -shared -I. -o $@ $<

# ---- sanitizers ----------------------------------------------------------------------------------------------
# Address and undefined-behaviour sanitizers over every test program and, through the workers, over plug-ins; CPU only.
ASAN_BUILD := build-asan
ASAN := -fsanitize=address,undefined -fno-sanitize-recover=undefined
asan: deps ## every test program under ASan and UBSan
	@$(MAKE) --no-print-directory -j$(JOBS) BUILD=$(ASAN_BUILD) NVCC= OPT="-O1 -g -fno-omit-frame-pointer" SANITIZE="$(ASAN)" \
	    check-programs

# Valgrind knows no AVX-512, so the build does without. Programs that run a model, all kernels or all golden rows take
# hours there and are left out; the sanitizers above have them.
VALGRIND_BUILD := build-valgrind
VALGRIND_SLOW := tests/kernels/test_cpu tests/kernels/test_cuda tests/datasets/test_golden_longbench \
                 tests/latency/test_audit tests/methods/test_properties tests/methods/test_integration \
                 tests/methods/test_counters tests/methods/test_mac tests/results/test_export \
                 tests/results/test_plots tests/results/test_report tests/model/test_forward tests/model/test_session \
                 tests/model/test_attender tests/model/test_moe tests/model/test_tokenizer tests/model/test_weights
VALGRIND_PROGRAMS := $(filter-out $(VALGRIND_SLOW),$(patsubst tests/%.c,tests/%,$(TEST_SOURCES)))
valgrind: deps ## the quicker test programs under valgrind (the package valgrind must be there)
	@command -v valgrind >/dev/null || { echo "install the package valgrind"; exit 1; }
	@$(MAKE) --no-print-directory -j$(JOBS) BUILD=$(VALGRIND_BUILD) NVCC= OPT="-O1 -g" ARCH=-march=x86-64-v3 \
	    $(addprefix $(VALGRIND_BUILD)/,$(VALGRIND_PROGRAMS)) plugin-example $(subst $(BUILD)/,$(VALGRIND_BUILD)/,$(BAD_PLUGINS))
	@RUNNER="valgrind -q --leak-check=full --errors-for-leak-kinds=definite --error-exitcode=9" BUILD=$(VALGRIND_BUILD) \
	    bash tests/run.sh $(addprefix $(VALGRIND_BUILD)/,$(VALGRIND_PROGRAMS))

check-programs: $(TEST_PROGRAMS) plugin-example $(BAD_PLUGINS)
	@BUILD=$(BUILD) bash tests/run.sh $(TEST_PROGRAMS)
.PHONY: check-programs

# ---- fuzzing -------------------------------------------------------------------------------------------------
$(BUILD)/tests/fuzz/corpus_%: tests/fuzz/corpus_main.c tests/fuzz/fuzz_%.c $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.c,$^) $(LIBRARY) $(CUDA_LIBS) $(LIBS)

$(BUILD)/tests/fuzz/fuzz_%: tests/fuzz/fuzz_%.c $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -fsanitize=fuzzer -o $@ $(filter %.c,$^) $(LIBRARY) $(CUDA_LIBS) $(LIBS)

CLANG ?= $(shell command -v clang || ls /usr/bin/clang-[0-9]* 2>/dev/null | tail -n 1)
FUZZ_SECONDS ?= 60
FUZZ_BUILD := build-fuzz
FUZZ_SANITIZE := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
fuzz: ## fuzz every parser for FUZZ_SECONDS (60) each, with clang's libFuzzer, ASan and UBSan
	@[ -n "$(CLANG)" ] || { echo "fuzzing needs clang: install the package clang"; exit 1; }
	@$(MAKE) --no-print-directory BUILD=$(FUZZ_BUILD) CC="$(CLANG)" NVCC= OPT="-O1 -g" \
	    SANITIZE="$(FUZZ_SANITIZE)" \
	    $(FUZZ_NAMES:%=$(FUZZ_BUILD)/tests/fuzz/fuzz_%)
	@for n in $(FUZZ_NAMES); do mkdir -p $(FUZZ_BUILD)/corpus/$$n; echo "== $$n"; \
	    nice $(FUZZ_BUILD)/tests/fuzz/fuzz_$$n -max_total_time=$(FUZZ_SECONDS) -max_len=16384 -timeout=20 \
	        -print_final_stats=1 -verbosity=0 -artifact_prefix=$(FUZZ_BUILD)/$$n- \
	        $(FUZZ_BUILD)/corpus/$$n tests/fuzz/corpus/$$n || exit 1; done

# ---- a cluster -----------------------------------------------------------------------------------------------
check-slurm: all ## a run on a real Slurm of this machine (packages slurm-wlm and munge, root; else skipped)
	@bash tests/slurm/run.sh
.PHONY: check-slurm

# Everything above goes on for as long as somebody likes: every reader under the fuzzer, the program with the sanitizers
# against the mutators of tests/campaign/, and killed runs. Seeds are printed; an input that a fuzzer finds becomes a file
# of tests/fuzz/corpus/, which `make check` runs.
MINUTES ?= 30
MUTATORS := disk folders locks plugins signals
CAMPAIGN_LIBRARIES := $(BUILD)/campaign/faulty_disk.so $(BUILD)/campaign/chaos.so
$(BUILD)/campaign/%.so: tests/campaign/%.c methods/method.h
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE $(WARN) -O2 -fPIC -shared -I. -o $@ $< -lm -ldl -pthread

.PHONY: campaign nightly
campaign: all $(CAMPAIGN_LIBRARIES) ## fuzz every reader, mutate everything else, kill runs, for MINUTES (30) in all
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=$$(($(MINUTES) * 36 / $(words $(FUZZ_NAMES)) + 1))
	@$(MAKE) --no-print-directory BUILD=$(FUZZ_BUILD) CC="$(CLANG)" NVCC= OPT="-O1 -g" SANITIZE="$(FUZZ_SANITIZE)" \
	    $(FUZZ_BUILD)/harness
	@for n in $(MUTATORS); do HARNESS=$(FUZZ_BUILD)/harness FAULTY_DISK=$(BUILD)/campaign/faulty_disk.so \
	    CHAOS=$(BUILD)/campaign/chaos.so nice python3 tests/campaign/$$n.py $$(($(MINUTES) * 3)) || exit 1; done
	@nice bash tests/campaign/kills.sh $$(($(MINUTES) * 9))

nightly: ## five minutes of the campaign
	@$(MAKE) --no-print-directory campaign MINUTES=5
