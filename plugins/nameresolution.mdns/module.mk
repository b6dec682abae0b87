PLUGINS += nameresolution.mdns
nameresolution.mdns_SRC := $(wildcard plugins/nameresolution.mdns/*.c)
