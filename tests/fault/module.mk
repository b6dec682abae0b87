# The supervisor against plugins that misbehave, and the plugin that does it.
FAULT_TEST_LD = $(YAML_LD) $(NET_LD) $(BASE_LD)
UNIT_TESTS += super_test refuse_test foreign_test
super_test_SRC := tests/fault/super_test.c
super_test_LIBS := kernel net base proto llhttp
super_test_LD = $(FAULT_TEST_LD)
TEST_PROGS += faulty
faulty_SRC := tests/fault/faulty.c
faulty_LIBS := plugin net base proto llhttp
faulty_LD = $(NET_LD) $(BASE_LD)
refuse_test_SRC := tests/fault/refuse_test.c
refuse_test_LIBS := kernel net base proto llhttp
refuse_test_LD = $(FAULT_TEST_LD)
foreign_test_SRC := tests/fault/foreign_test.c
foreign_test_LIBS := kernel net base proto llhttp
foreign_test_LD = $(FAULT_TEST_LD)
# kernel/super
UNIT_TESTS += super_table_test manifest_test
super_table_test_SRC := tests/unit/super_table_test.c kernel/super/table.c
super_table_test_LIBS :=
manifest_test_SRC := tests/unit/manifest_test.c
manifest_test_LIBS := kernel base
manifest_test_LD = $(YAML_LD) $(BASE_LD)
# sdk/plugin
UNIT_TESTS += sdk_test
sdk_test_SRC := tests/fault/sdk_test.c
sdk_test_LIBS := kernel net base proto llhttp
sdk_test_LD = $(FAULT_TEST_LD)
TEST_PROGS += sdk_plugin
sdk_plugin_SRC := tests/fault/sdk_plugin.c
sdk_plugin_LIBS := plugin net base proto llhttp
sdk_plugin_LD = $(NET_LD) $(BASE_LD)
UNIT_TESTS += in_memory_test
in_memory_test_SRC := tests/fault/in_memory_test.c
in_memory_test_LIBS := kernel net base proto llhttp
in_memory_test_LD = $(FAULT_TEST_LD)
