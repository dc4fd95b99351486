# Tests: every tests/*/test_*.c is a cmocka program of its own, linked against the whole library; every
# tests/*/check_*.sh is a script that exits 0 or 1. `make check` runs all of them, `make test` sets up first.
TEST_SOURCES := $(wildcard tests/*/test_*.c)
TEST_PROGRAMS := $(patsubst %.c,$(BUILD)/%,$(TEST_SOURCES))
TEST_SCRIPTS := $(wildcard tests/*/check_*.sh)

test: deps ## install packages, build, run every test
	@$(MAKE) --no-print-directory check

check: all $(TEST_PROGRAMS) plugin-example ## run every test (nothing is installed)
	@BUILD=$(BUILD) bash tests/run.sh $(TEST_PROGRAMS) $(TEST_SCRIPTS)

$(BUILD)/tests/%: tests/%.c $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(LIBRARY) $(CUDA_LIBS) -lcmocka $(LIBS)

plugin-example: $(BUILD)/plugins/example.so ## build the out-of-tree example method
$(BUILD)/plugins/%.so: methods/examples/%.c methods/method.h
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) -O2 -fPIC -shared -I. -o $@ $<
