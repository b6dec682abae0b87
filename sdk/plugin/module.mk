LIBS += plugin
plugin_SRC := $(wildcard sdk/plugin/*.c)
