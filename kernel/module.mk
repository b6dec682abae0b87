# The kernel without its main.c is a library, so that tests link it.
LIBS += kernel
kernel_SRC := $(filter-out kernel/main.c,$(wildcard kernel/*.c kernel/*/*.c kernel/*/*/*.c))

PROGS += daprd
daprd_SRC  := kernel/main.c
daprd_LIBS := kernel trust net base proto llhttp
daprd_LD   = $(BASE_LD) $(NET_LD)
