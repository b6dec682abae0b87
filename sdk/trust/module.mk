LIBS += trust
trust_SRC := $(wildcard sdk/trust/*.c)
