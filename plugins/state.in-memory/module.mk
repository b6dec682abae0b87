PLUGINS += state.in-memory
state.in-memory_SRC := plugins/state.in-memory/main.c
