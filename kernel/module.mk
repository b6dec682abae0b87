# The kernel without its main.c is a library, so that tests link it.
LIBS += kernel
kernel_SRC := $(filter-out kernel/main.c,$(wildcard kernel/*.c kernel/*/*.c))
