PLUGINS += bindings.rabbitmq
bindings.rabbitmq_SRC := $(wildcard plugins/bindings.rabbitmq/*.c plugins/shared/options/*.c plugins/shared/amqp/*.c plugins/shared/binding/*.c)
bindings.rabbitmq_LD := -l:librabbitmq.a
