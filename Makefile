# microdapr: one non-recursive make. Every folder lists its sources in module.mk; this file turns lists into programs.
#   LIBS += name          name_SRC := a.c b.c              -> build/MODE/lib/libname.a
#   PROGS += name         name_SRC, name_LIBS, name_LD     -> build/MODE/bin/name
#   TOOLS += name         name_SRC, name_LIBS, name_LD     -> build/MODE/tools/name, built only for what needs it
#   GO_PLUGINS += x       plugins/x is a Go module     -> build/release/plugins/x/x, where Go and the modules can be had
#   PLUGINS += state.x    state.x_SRC, state.x_LD          -> build/MODE/plugins/state.x/state.x (and plugin.yaml beside it)
#   UNIT_TESTS += name    name_SRC, name_LIBS, name_LD     -> build/MODE/tests/name, run by `make unit`
#   TEST_PROGS += name    the same, but only built: helpers that tests start
#   FUZZERS += name       name_SRC, name_LIBS, name_LD     -> build/fuzz/fuzz/name (clang, libFuzzer), corpus in tests/fuzz/corpus/name
# MODE is release, debug, asan, tsan, fuzz or cover.
MODE ?= release
B    := build/$(MODE)
GEN  := build/gen
.DEFAULT_GOAL := all

CSTD   := -std=gnu17 -D_GNU_SOURCE
WARN   := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wswitch-enum \
          -Wframe-larger-than=4096 -Wno-unused-parameter -Wno-missing-field-initializers
ifdef CI
WARN   += -Werror
endif
HARDEN := -fstack-protector-strong -fPIE -ffunction-sections -fdata-sections
LDHARD := -pie -Wl,-z,relro,-z,now,-z,pack-relative-relocs -Wl,--gc-sections -Wl,--as-needed
INC    := -I. -I$(GEN) -Isdk/include -isystem /usr/share/include/llhttp
CC     ?= gcc
ifeq ($(MODE),release)
OPT := -O2 -g1 -D_FORTIFY_SOURCE=2
else ifeq ($(MODE),debug)
OPT := -O0 -g3
else ifeq ($(MODE),asan)
OPT := -O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
WARN += -Wno-frame-larger-than
else ifeq ($(MODE),tsan)
OPT := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
WARN += -Wno-frame-larger-than
else ifeq ($(MODE),fuzz)
CC  := clang
OPT := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-omit-frame-pointer
WARN += -Wno-frame-larger-than -Wno-unknown-warning-option
else ifeq ($(MODE),cover)
OPT := -O0 -g --coverage
endif
CFLAGS_ALL = $(CSTD) $(OPT) $(WARN) $(HARDEN) $(INC) $(CFLAGS)

LIBS :=
PROGS :=
TOOLS :=
PLUGINS :=
GO_PLUGINS :=
UNIT_TESTS :=
TEST_PROGS :=
FUZZERS :=
include $(sort $(wildcard */module.mk */*/module.mk))

# ---- rules ----
.DELETE_ON_ERROR:
.SECONDARY:

# Third-party archives, static where Debian has them: faster calls and a smaller resident set. wolfSSL and zlib are shared: they would be most of
# each program that can speak TLS, and no request without TLS or compression calls them.
BASE_LD  := -l:libyaml.a -l:libev.a -l:libboost_context.a -l:libprotobuf-c.a -lm -lpthread
NET_LD   := -l:libnghttp2.a -lwolfssl -lz -l:libsodium.a -l:libmsgpackc.a -lm
CHECK_LD := -l:libcheck_pic.a -l:libsubunit.a -lrt -lm -lpthread
PLUGIN_LIBS := plugin net base proto llhttp

obj  = $(patsubst %.c,$(B)/obj/%.o,$(filter %.c,$(1)))
libs = $(foreach l,$(1),$(B)/lib/lib$(l).a)
link = $(CC) $(OPT) $(LDHARD) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group

# llhttp comes from Debian as C source (package node-llhttp).
LLHTTP_SRC := api.c http.c llhttp.c
$(B)/obj/llhttp/%.o: /usr/share/llhttp/%.c
	@mkdir -p $(@D)
	@$(CC) $(CSTD) $(OPT) -w $(HARDEN) $(INC) -c $< -o $@
$(B)/lib/libllhttp.a: $(LLHTTP_SRC:%.c=$(B)/obj/llhttp/%.o)
	@mkdir -p $(@D)
	@rm -f $@ && ar rcs $@ $^

# Generated code: built without warnings. Everything else waits for the generated headers.
$(B)/obj/$(GEN)/%.o: $(GEN)/%.c | gen
	@mkdir -p $(@D)
	@$(CC) $(CSTD) $(OPT) -w $(HARDEN) $(INC) -MMD -MP -c $< -o $@
$(B)/obj/%.o: %.c | gen
	@mkdir -p $(@D)
	@echo "  CC   $<"
	@$(CC) $(CFLAGS_ALL) -MMD -MP -c $< -o $@

define LIB_rule
$(B)/lib/lib$(1).a: $(call obj,$($(1)_SRC))
	@mkdir -p $$(@D)
	@rm -f $$@ && ar rcs $$@ $$(filter %.o,$$^)
endef
define PROG_rule
$(B)/$(2)/$(1): $(call obj,$($(1)_SRC)) $(call libs,$($(1)_LIBS))
	@mkdir -p $$(@D)
	@echo "  LD   $$@"
	@$$(link) $($(1)_LD)
endef
# A plugin: its program and its manifest stand together in build/MODE/plugins/<type>/.
define PLUGIN_rule
$(B)/plugins/$(1)/$(1): $(call obj,$($(1)_SRC)) $(call libs,$(PLUGIN_LIBS)) $(B)/plugins/$(1)/plugin.yaml
	@mkdir -p $$(@D)
	@echo "  LD   $$@"
	@$$(link) $($(1)_LD) $(BASE_LD) $(NET_LD)
$(B)/plugins/$(1)/plugin.yaml: plugins/$(1)/plugin.yaml
	@mkdir -p $$(@D)
	@cp $$< $$@
endef
# Plugins in Go are left out where there is no Go, or no way to their modules; the build says so and goes on. In release mode only.
GO := $(firstword $(shell command -v go) $(wildcard /usr/local/go/bin/go))
define GO_PLUGIN_rule
$(B)/go/$(1).stamp: $(wildcard plugins/$(1)/*) $(wildcard sdk/go/*.go)
	@mkdir -p $(B)/go
	@rm -rf $(B)/plugins/$(1)
	@if [ -z "$(GO)" ]; then echo "  --   plugin $(1) is left out: there is no Go here"; \
	elif (cd plugins/$(1) && CGO_ENABLED=0 GOFLAGS= GOWORK=off $(GO) build -buildvcs=false -trimpath -ldflags='-s -w' \
	      -o $(CURDIR)/$(B)/go/$(1) .) > $(B)/go/$(1).log 2>&1; then \
	  echo "  GO   $(B)/plugins/$(1)/$(1)"; mkdir -p $(B)/plugins/$(1); \
	  mv $(B)/go/$(1) $(B)/plugins/$(1)/; cp plugins/$(1)/plugin.yaml $(B)/plugins/$(1)/; \
	else echo "  --   plugin $(1) is left out: $$$$(tail -n 1 $(B)/go/$(1).log)"; fi
	@touch $$@
endef
define TEST_rule
$(B)/tests/$(1): $(call obj,$($(1)_SRC)) $(call libs,$($(1)_LIBS))
	@mkdir -p $$(@D)
	@echo "  LD   $$@"
	@$$(link) $($(1)_LD) $(CHECK_LD)
endef
define FUZZ_rule
$(B)/fuzz/$(1): $(call obj,$($(1)_SRC)) $(call libs,$($(1)_LIBS))
	@mkdir -p $$(@D)
	@echo "  LD   $$@"
	@$$(CC) $$(OPT) -fsanitize=fuzzer $$(LDFLAGS) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group $($(1)_LD)
endef
$(foreach l,$(LIBS),$(eval $(call LIB_rule,$(l))))
$(foreach p,$(PROGS),$(eval $(call PROG_rule,$(p),bin)))
$(foreach p,$(TOOLS),$(eval $(call PROG_rule,$(p),tools)))
$(foreach p,$(PLUGINS),$(eval $(call PLUGIN_rule,$(p))))
$(foreach p,$(GO_PLUGINS),$(eval $(call GO_PLUGIN_rule,$(p))))
$(foreach t,$(UNIT_TESTS) $(TEST_PROGS),$(eval $(call TEST_rule,$(t))))
$(foreach f,$(FUZZERS),$(eval $(call FUZZ_rule,$(f))))

PROG_FILES   := $(PROGS:%=$(B)/bin/%)
PLUGIN_FILES := $(foreach p,$(PLUGINS),$(B)/plugins/$(p)/$(p))
ifeq ($(MODE),release)
GO_PLUGIN_FILES := $(GO_PLUGINS:%=$(B)/go/%.stamp)
endif
TEST_FILES   := $(UNIT_TESTS:%=$(B)/tests/%)
TEST_HELPERS := $(TEST_PROGS:%=$(B)/tests/%) $(PLUGIN_FILES)
FUZZ_FILES   := $(FUZZERS:%=$(B)/fuzz/%)
TOOL_FILES   := $(TOOLS:%=$(B)/tools/%)
# For plugin authors: one archive with all that a plugin links, and the public headers.
SDK_PARTS := ev boost_context protobuf-c nghttp2 wolfssl z
SDK_HEADERS := $(notdir $(wildcard sdk/include/dapr/*.h))
# And the packages for authors in other languages, with the wire contracts that they read.
SDK_LANG_SRC := $(shell find sdk/c sdk/go sdk/python sdk/js -type f -not -name '*.pyc')
SDK_PROTOS := $(wildcard $(addprefix proto/,plugin/v1/*.proto dapr/proto/components/v1/*.proto grpc/reflection/*/*.proto google/rpc/*.proto))
SDK_FILES := $(B)/lib/libdapr-plugin.a $(SDK_HEADERS:%=$(B)/include/dapr/%) $(B)/share/dapr/sdk/.stamp
$(B)/lib/libdapr-plugin.a: $(call libs,$(PLUGIN_LIBS))
	@rm -f $@
	@(echo "CREATE $@"; for a in $^; do echo "ADDLIB $$a"; done; \
	  for l in $(SDK_PARTS); do echo "ADDLIB $$($(CC) -print-file-name=lib$$l.a)"; done; echo SAVE; echo END) | ar -M
$(B)/include/dapr/%.h: sdk/include/dapr/%.h
	@mkdir -p $(@D)
	@cp $< $@
$(B)/share/dapr/sdk/.stamp: $(SDK_LANG_SRC) $(SDK_PROTOS)
	@rm -rf $(@D) && mkdir -p $(@D)
	@cp --parents $(SDK_LANG_SRC) $(@D) && mv $(@D)/sdk/* $(@D) && rmdir $(@D)/sdk
	@for d in python/dapr_plugin js; do cp --parents $(SDK_PROTOS) $(@D)/$$d; done
	@touch $@
-include $(shell test -d $(B)/obj && find $(B)/obj -name '*.d')

# ---- what a person calls; the text after ## is printed by `make help` ----
.PHONY: all gen unit test demo conformance sdk-tests bench asan tsan fuzz lint fmt docs docs-check install deps clean help cover

all: $(PROG_FILES) $(B)/bin/dapr $(PLUGIN_FILES) $(GO_PLUGIN_FILES) $(SDK_FILES) ## build daprd, daprctl and every plugin into build/release

deps: ## install the Debian packages that the build and the tests need (nothing to do when they are there)
	@.ci/deps

demo: ## install packages, build, run a sidecar with an app: state on SQLite, a secret, a restart, events
	@.ci/deps
	@$(MAKE) --no-print-directory all
	@tests/demo/run

test: ## install packages, build, run unit, fault and conformance tests, lint
	@.ci/deps test
	@$(MAKE) --no-print-directory all unit
	@$(MAKE) --no-print-directory conformance
	@$(MAKE) --no-print-directory docs-check lint

unit: $(TEST_FILES) $(TEST_HELPERS) ## run the unit and fault tests
	@tests/unit/run $(TEST_FILES)

conformance: all $(TEST_HELPERS) $(TOOL_FILES) ## run the black-box tests through official SDK clients
	@tests/conformance/run

sdk-tests: all ## whole apps of the official SDKs: Python, JavaScript, Go, Java (needs go, mvn and a JDK; fetches modules)
	@SDK_TESTS=1 tests/conformance/run -k 'test_apps or test_polyglot'

bench: all ## compare daprd binaries: make bench BINS="ref=/path/to/daprd"
	@tests/bench/run ours=$(CURDIR)/$(B)/bin/daprd $(BINS)

asan: ## run the unit and fault tests under ASan and UBSan
	@$(MAKE) --no-print-directory MODE=asan all unit

tsan: ## run the tests of threaded parts under TSan
	@$(MAKE) --no-print-directory MODE=tsan unit

fuzz: ## run every fuzz target for FUZZ_SECONDS (60) each
	@.ci/deps fuzz
	@$(MAKE) --no-print-directory MODE=fuzz fuzz-run

fuzz-run: $(FUZZ_FILES)
	@tests/fuzz/run $(FUZZ_FILES)

cover: ## unit tests with coverage
	@$(MAKE) --no-print-directory MODE=cover unit

lint: ## check layers, includes, names and repository rules
	@.ci/lint

fmt: ## format changed C files
	@git diff --name-only HEAD -- '*.c' '*.h' | xargs -r clang-format -i

docs: $(TOOL_FILES) ## write the reference pages of docs/ and the man pages
	@docs/generate $(B)

docs-check: $(TOOL_FILES) ## are the reference pages of docs/ those that `make docs` would write?
	@docs/generate $(B) --check

PREFIX ?= /usr/local
TO = $(DESTDIR)$(PREFIX)
install: all $(TOOL_FILES) ## install into PREFIX (/usr/local), below DESTDIR when given
	@docs/generate $(B) --man
	install -d $(TO)/bin
	install -s -m 755 $(B)/bin/daprd $(B)/bin/daprctl $(TO)/bin/
	ln -sf daprctl $(TO)/bin/dapr
	set -e; for p in $(PLUGINS); do install -d $(TO)/lib/dapr/plugins/$$p; \
	  install -s -m 755 $(B)/plugins/$$p/$$p $(TO)/lib/dapr/plugins/$$p/; \
	  install -m 644 $(B)/plugins/$$p/plugin.yaml $(TO)/lib/dapr/plugins/$$p/; done
	set -e; for p in $(GO_PLUGINS); do [ -d $(B)/plugins/$$p ] || continue; install -d $(TO)/lib/dapr/plugins/$$p; \
	  install -m 755 $(B)/plugins/$$p/$$p $(TO)/lib/dapr/plugins/$$p/; \
	  install -m 644 $(B)/plugins/$$p/plugin.yaml $(TO)/lib/dapr/plugins/$$p/; done
	install -D -m 644 $(B)/lib/libdapr-plugin.a $(TO)/lib/libdapr-plugin.a
	install -d $(TO)/include/dapr
	install -m 644 sdk/include/dapr/*.h $(TO)/include/dapr/
	install -d $(TO)/share/dapr && cp -r $(B)/share/dapr/sdk $(TO)/share/dapr/
	install -d $(TO)/share/man/man1 $(TO)/share/man/man5
	install -m 644 build/man/*.1 $(TO)/share/man/man1/
	install -m 644 build/man/*.5 $(TO)/share/man/man5/
	install -d $(TO)/share/bash-completion/completions $(TO)/share/zsh/site-functions $(TO)/share/fish/vendor_completions.d
	$(B)/bin/daprctl completion bash > $(TO)/share/bash-completion/completions/dapr
	ln -sf dapr $(TO)/share/bash-completion/completions/daprctl
	$(B)/bin/daprctl completion zsh > $(TO)/share/zsh/site-functions/_dapr
	$(B)/bin/daprctl completion fish > $(TO)/share/fish/vendor_completions.d/dapr.fish

clean: ## remove everything that was built
	rm -rf build

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
