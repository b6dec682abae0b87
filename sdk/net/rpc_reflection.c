#include "sdk/net/rpc_call.h"
const struct rpc_method rpc_reflection_rows[] = {{NULL}};
const size_t rpc_reflection_rows_n = 0;
