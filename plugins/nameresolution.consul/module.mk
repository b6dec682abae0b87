PLUGINS += nameresolution.consul
nameresolution.consul_SRC := $(wildcard plugins/nameresolution.consul/*.c) plugins/shared/web/web.c
