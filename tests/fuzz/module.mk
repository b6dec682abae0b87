FUZZERS += flags_fuzz
flags_fuzz_SRC := tests/fuzz/flags_fuzz.c
flags_fuzz_LIBS := base
flags_fuzz_LD = $(BASE_LD)
