PROGS += daprctl
daprctl_SRC := $(wildcard ctl/*.c)
daprctl_LIBS := net base proto llhttp
daprctl_LD = -l:libyaml.a $(NET_LD) $(BASE_LD)
