PLUGINS += pubsub.rabbitmq
pubsub.rabbitmq_SRC := $(wildcard plugins/pubsub.rabbitmq/*.c plugins/shared/options/*.c plugins/shared/amqp/*.c)
pubsub.rabbitmq_LD := -l:librabbitmq.a
