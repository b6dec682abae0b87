LIBS += net
net_SRC := $(wildcard sdk/net/*.c)
