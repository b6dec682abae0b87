PLUGINS += pubsub.mqtt3
pubsub.mqtt3_SRC := $(wildcard plugins/pubsub.mqtt3/*.c plugins/shared/mqtt/*.c)
