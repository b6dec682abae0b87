PLUGINS += bindings.localstorage
bindings.localstorage_SRC := plugins/bindings.localstorage/localstorage.c
