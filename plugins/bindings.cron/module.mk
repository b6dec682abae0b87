PLUGINS += bindings.cron
bindings.cron_SRC := plugins/bindings.cron/cron.c
