PLUGINS += pubsub.in-memory
pubsub.in-memory_SRC := plugins/pubsub.in-memory/main.c
