PLUGINS += state.etcd
state.etcd_SRC := plugins/state.etcd/main.c
