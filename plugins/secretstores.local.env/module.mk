PLUGINS += secretstores.local.env
secretstores.local.env_SRC := plugins/secretstores.local.env/local_env.c
