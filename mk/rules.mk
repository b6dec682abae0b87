# From the lists of all module.mk files to objects, archives, programs, plugins, tests and fuzzers.
.DELETE_ON_ERROR:
.SECONDARY:

# Third-party archives, static where Debian has them: no search path is needed at run time, and a smaller resident set.
BASE_LD  := -l:libev.a -l:libboost_context.a -l:libprotobuf-c.a -lm -lpthread
NET_LD   := -l:libnghttp2.a -l:libwolfssl.a -l:libz.a -lm
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
$(B)/bin/$(1): $(call obj,$($(1)_SRC)) $(call libs,$($(1)_LIBS))
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
$(foreach p,$(PROGS),$(eval $(call PROG_rule,$(p))))
$(foreach p,$(PLUGINS),$(eval $(call PLUGIN_rule,$(p))))
$(foreach t,$(UNIT_TESTS),$(eval $(call TEST_rule,$(t))))
$(foreach f,$(FUZZERS),$(eval $(call FUZZ_rule,$(f))))

PROG_FILES   := $(PROGS:%=$(B)/bin/%)
PLUGIN_FILES := $(foreach p,$(PLUGINS),$(B)/plugins/$(p)/$(p))
TEST_FILES   := $(UNIT_TESTS:%=$(B)/tests/%)
FUZZ_FILES   := $(FUZZERS:%=$(B)/fuzz/%)
-include $(shell test -d $(B)/obj && find $(B)/obj -name '*.d')
