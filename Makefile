# microdapr: one non-recursive make. Every folder lists its sources in module.mk; this file turns lists into programs.
# Lists:  LIBS += name          name_SRC := a.c b.c            -> build/MODE/lib/libname.a
#         PROGS += name         name_SRC, name_LIBS, name_LD   -> build/MODE/bin/name
#         PLUGINS += state.x    state.x_SRC, state.x_LD        -> build/MODE/plugins/state.x/state.x (+ plugin.yaml)
#         UNIT_TESTS += name    name_SRC, name_LIBS, name_LD   -> build/MODE/tests/name, run by `make unit`
#         FUZZERS += name       name_SRC, name_LIBS            -> build/fuzz/fuzz/name (clang, libFuzzer)
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
LDHARD := -pie -Wl,-z,relro,-z,now -Wl,--gc-sections -Wl,--as-needed
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
PLUGINS :=
UNIT_TESTS :=
FUZZERS :=
include $(sort $(wildcard */module.mk */*/module.mk))
include mk/rules.mk mk/targets.mk
