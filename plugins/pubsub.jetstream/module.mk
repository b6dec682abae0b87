PLUGINS += pubsub.jetstream
pubsub.jetstream_SRC := $(wildcard plugins/pubsub.jetstream/*.c plugins/shared/options/*.c plugins/shared/nats/*.c)
