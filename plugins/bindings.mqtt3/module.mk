PLUGINS += bindings.mqtt3
bindings.mqtt3_SRC := $(wildcard plugins/bindings.mqtt3/*.c plugins/shared/mqtt/*.c)
