# The supervisor against plugins that misbehave, and the plugin that does it.
UNIT_TESTS += super_test
super_test_SRC := tests/fault/super_test.c
super_test_LIBS := kernel net base proto llhttp
super_test_LD = $(YAML_LD) $(NET_LD) $(BASE_LD)
