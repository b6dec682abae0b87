PLUGINS += bindings.smtp
bindings.smtp_SRC := $(wildcard plugins/bindings.smtp/*.c)
bindings.smtp_LD := -lcurl
