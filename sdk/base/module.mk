LIBS += base
base_SRC := $(wildcard sdk/base/*.c)
