FUZZERS += flags_fuzz
flags_fuzz_SRC := tests/fuzz/flags_fuzz.c
flags_fuzz_LIBS := base
flags_fuzz_LD = $(BASE_LD)

FUZZERS += json_fuzz pb_fuzz pbjson_fuzz
json_fuzz_SRC := tests/fuzz/json_fuzz.c
json_fuzz_LIBS := base
json_fuzz_LD = $(BASE_LD)
pb_fuzz_SRC := tests/fuzz/pb_fuzz.c
pb_fuzz_LIBS := base proto
pb_fuzz_LD = $(BASE_LD)
pbjson_fuzz_SRC := tests/fuzz/pbjson_fuzz.c
pbjson_fuzz_LIBS := base proto
pbjson_fuzz_LD = $(BASE_LD)

FUZZERS += yaml_fuzz
yaml_fuzz_SRC := tests/fuzz/yaml_fuzz.c
yaml_fuzz_LIBS := kernel base
yaml_fuzz_LD = -l:libyaml.a $(BASE_LD)
