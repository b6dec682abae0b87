UNIT_TESTS += conn_test
conn_test_SRC := tests/unit/conn_test.c
conn_test_LIBS := net base
conn_test_LD = $(NET_LD) $(BASE_LD)
