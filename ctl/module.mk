# What `docs` makes pages of, too, is everything but main.c.
ctl_SRC := $(filter-out ctl/main.c,$(wildcard ctl/*.c ctl/*/*.c))
LIBS += ctl

PROGS += daprctl
daprctl_SRC := ctl/main.c
daprctl_LIBS := ctl trust net base proto llhttp
daprctl_LD = $(NET_LD) $(BASE_LD)
$(B)/bin/dapr: $(B)/bin/daprctl # its other name
	@ln -sf daprctl $@
