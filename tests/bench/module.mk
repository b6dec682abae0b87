PROGS += rpc_bench
rpc_bench_SRC := tests/bench/rpc_bench.c
rpc_bench_LIBS := net base proto llhttp
rpc_bench_LD = $(NET_LD) $(BASE_LD)
PROGS += httpd_bench
httpd_bench_SRC := tests/bench/httpd.c
httpd_bench_LIBS := net base proto llhttp
httpd_bench_LD = $(NET_LD) $(BASE_LD)
