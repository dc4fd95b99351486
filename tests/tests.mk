# Tests: every tests/*/test_*.c is a cmocka program of its own, linked against the whole library; every
# tests/*/check_*.sh is a script that exits 0 or 1. `make check` runs all of them, `make test` sets up first.
TEST_SOURCES := $(wildcard tests/*/test_*.c)
TEST_PROGRAMS := $(patsubst %.c,$(BUILD)/%,$(TEST_SOURCES))
TEST_SCRIPTS := $(wildcard tests/*/check_*.sh)
# Plug-ins that the loader must refuse with a clear sentence.
BAD_PLUGINS := $(patsubst tests/methods/bad/%.c,$(BUILD)/plugins/bad/%.so,$(wildcard tests/methods/bad/*.c))

test: deps ## install packages, build, run every test
	@$(MAKE) --no-print-directory check

check: all $(TEST_PROGRAMS) plugin-example $(BAD_PLUGINS) ## run every test (nothing is installed)
	@BUILD=$(BUILD) bash tests/run.sh $(TEST_PROGRAMS) $(TEST_SCRIPTS)

$(BUILD)/tests/%: tests/%.c $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.c,$^) $(LIBRARY) $(CUDA_LIBS) -lcmocka $(LIBS)

# The stage that drives a method's hooks without a model, and the properties that every method inherits. A test of
# another backend lists the same files. Programs of tests/methods load plug-ins.
STAGE := tests/methods/host.c tests/methods/host_ops.c tests/methods/properties.c
$(BUILD)/tests/methods/test_properties $(BUILD)/tests/methods/test_methods: $(STAGE)
$(filter $(BUILD)/tests/methods/%,$(TEST_PROGRAMS)): | plugin-example $(BAD_PLUGINS)

$(BUILD)/plugins/bad/%.so: tests/methods/bad/%.c tests/methods/bad/bad.h methods/method.h
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) -O2 -fPIC -shared -I. -o $@ $<

plugin-example: $(BUILD)/plugins/example.so ## build the out-of-tree example method
$(BUILD)/plugins/%.so: methods/examples/%.c methods/method.h
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) -O2 -fPIC -shared -I. -o $@ $<
