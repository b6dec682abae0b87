# gRPC interoperability: see run.sh.
PROGS += interop_server interop_client
interop_server_SRC := tests/interop/server.c
interop_server_LIBS := net base proto llhttp
interop_server_LD = $(NET_LD) $(BASE_LD)
interop_client_SRC := tests/interop/client.c
interop_client_LIBS := net base proto llhttp
interop_client_LD = $(NET_LD) $(BASE_LD)
