PLUGINS += secretstores.local.file
secretstores.local.file_SRC := plugins/secretstores.local.file/local_file.c
