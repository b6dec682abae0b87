PLUGINS += nameresolution.kubernetes
nameresolution.kubernetes_SRC := $(wildcard plugins/nameresolution.kubernetes/*.c)
