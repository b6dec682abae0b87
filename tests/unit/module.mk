UNIT_TESTS += conn_test
conn_test_SRC := tests/unit/conn_test.c
conn_test_LIBS := net base
conn_test_LD = $(NET_LD) $(BASE_LD)
UNIT_TESTS += url_test
url_test_SRC := tests/unit/url_test.c
url_test_LIBS := net base
url_test_LD = $(NET_LD) $(BASE_LD)

# sdk/base. FAULT_LD: for programs that include tests/unit/fault.h.
FAULT_LD := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
UNIT_TESTS += arena_buf_test map_test loop_test fiber_test spare_test work_test log_test flags_test
arena_buf_test_SRC := tests/unit/arena_buf_test.c
arena_buf_test_LIBS := base
arena_buf_test_LD = $(FAULT_LD) $(BASE_LD)
map_test_SRC := tests/unit/map_test.c
map_test_LIBS := base
map_test_LD = $(FAULT_LD) $(BASE_LD)
loop_test_SRC := tests/unit/loop_test.c
loop_test_LIBS := base
loop_test_LD = $(BASE_LD)
fiber_test_SRC := tests/unit/fiber_test.c
fiber_test_LIBS := base
fiber_test_LD = $(BASE_LD)
spare_test_SRC := tests/unit/spare_test.c
spare_test_LIBS := base
spare_test_LD = $(BASE_LD)
work_test_SRC := tests/unit/work_test.c
work_test_LIBS := base
work_test_LD = $(BASE_LD)
log_test_SRC := tests/unit/log_test.c
log_test_LIBS := base
log_test_LD = $(BASE_LD)
flags_test_SRC := tests/unit/flags_test.c
flags_test_LIBS := base
flags_test_LD = $(FAULT_LD) $(BASE_LD)
UNIT_TESTS += sniff_test
sniff_test_SRC := tests/unit/sniff_test.c
sniff_test_LIBS := net base
sniff_test_LD = $(NET_LD) $(BASE_LD)
UNIT_TESTS += http1_test
http1_test_SRC := tests/unit/http1_test.c
http1_test_LIBS := net base llhttp
http1_test_LD = $(NET_LD) $(BASE_LD)

# sdk/base: json, pb, pbjson
UNIT_TESTS += json_test pb_test pbjson_test
json_test_SRC := tests/unit/json_test.c
json_test_LIBS := base
json_test_LD = $(FAULT_LD) $(BASE_LD)
pb_test_SRC := tests/unit/pb_test.c
pb_test_LIBS := base proto
pb_test_LD = $(FAULT_LD) $(BASE_LD)
pbjson_test_SRC := tests/unit/pbjson_test.c
pbjson_test_LIBS := base proto
pbjson_test_LD = $(FAULT_LD) $(BASE_LD)

UNIT_TESTS += rpc_test
rpc_test_SRC := tests/unit/rpc_test.c
rpc_test_LIBS := net base proto llhttp
rpc_test_LD = $(NET_LD) $(BASE_LD)

# kernel/opts, kernel/resources
YAML_LD := -l:libyaml.a
UNIT_TESTS += opts_test yaml_test resources_test configuration_test
opts_test_SRC := tests/unit/opts_test.c
opts_test_LIBS := kernel trust base
opts_test_LD = $(FAULT_LD) $(YAML_LD) $(BASE_LD)
yaml_test_SRC := tests/unit/yaml_test.c
yaml_test_LIBS := base
yaml_test_LD = $(FAULT_LD) $(YAML_LD) $(BASE_LD)
resources_test_SRC := tests/unit/resources_test.c
resources_test_LIBS := kernel trust base
resources_test_LD = $(FAULT_LD) $(YAML_LD) $(BASE_LD)
configuration_test_SRC := tests/unit/configuration_test.c
configuration_test_LIBS := kernel trust base
configuration_test_LD = $(FAULT_LD) $(YAML_LD) $(BASE_LD)
UNIT_TESTS += http_server_test
http_server_test_SRC := tests/unit/http_server_test.c
http_server_test_LIBS := net base proto llhttp
http_server_test_LD = $(NET_LD) $(BASE_LD)
UNIT_TESTS += rpc_wire_test http2_test
rpc_wire_test_SRC := tests/unit/rpc_wire_test.c
rpc_wire_test_LIBS := net base proto llhttp
rpc_wire_test_LD = $(NET_LD) $(BASE_LD)
http2_test_SRC := tests/unit/http2_test.c
http2_test_LIBS := net base proto llhttp
http2_test_LD = $(NET_LD) $(BASE_LD)
UNIT_TESTS += http_client_test
http_client_test_SRC := tests/unit/http_client_test.c
http_client_test_LIBS := net base proto llhttp
http_client_test_LD = $(NET_LD) $(BASE_LD)

# plugins/state.sqlite
UNIT_TESTS += sqlite_test
sqlite_test_SRC := tests/unit/sqlite_test.c $(addprefix plugins/state.sqlite/,db.c writer.c) $(wildcard plugins/shared/sqlite/*.c)
sqlite_test_LIBS := base
sqlite_test_LD = -l:libsqlite3.a $(BASE_LD)

# kernel/blocks: state, secrets
UNIT_TESTS += state_key_test state_json_test
state_key_test_SRC := tests/unit/state_key_test.c $(addprefix kernel/blocks/,state_key.c encryption.c)
state_key_test_LIBS := base
state_key_test_LD = $(NET_LD) $(BASE_LD)
state_json_test_SRC := tests/unit/state_json_test.c
state_json_test_LIBS := kernel trust net base proto llhttp
state_json_test_LD = $(NET_LD) $(YAML_LD) $(BASE_LD)
UNIT_TESTS += tls_test
tls_test_SRC := tests/unit/tls_test.c
tls_test_LIBS := net base proto llhttp
tls_test_LD = $(NET_LD) $(BASE_LD)

# kernel/front, kernel/observe
KERNEL_LD = $(NET_LD) $(YAML_LD) $(BASE_LD)
UNIT_TESTS += router_test errors_test metrics_test health_test trace_test observe_ctl_test
router_test_SRC := tests/unit/router_test.c
router_test_LIBS := kernel trust net base proto llhttp
router_test_LD = $(FAULT_LD) $(KERNEL_LD)
errors_test_SRC := tests/unit/errors_test.c
errors_test_LIBS := kernel trust net base proto llhttp
errors_test_LD = $(KERNEL_LD)
metrics_test_SRC := tests/unit/metrics_test.c
metrics_test_LIBS := kernel trust net base proto llhttp
metrics_test_LD = $(FAULT_LD) $(KERNEL_LD)
observe_ctl_test_SRC := tests/unit/observe_ctl_test.c ctl/prom.c
observe_ctl_test_LIBS := kernel trust net base proto llhttp
observe_ctl_test_LD = $(KERNEL_LD)
trace_test_SRC := tests/unit/trace_test.c
trace_test_LIBS := kernel trust net base proto llhttp
trace_test_LD = $(KERNEL_LD)
health_test_SRC := tests/unit/health_test.c
health_test_LIBS := kernel trust net base proto llhttp
health_test_LD = $(KERNEL_LD)
UNIT_TESTS += net_fault_test
net_fault_test_SRC := tests/unit/net_fault_test.c
net_fault_test_LIBS := net base proto llhttp
net_fault_test_LD = $(FAULT_LD) $(NET_LD) $(BASE_LD)
UNIT_TESTS += rpc_fault_test
rpc_fault_test_SRC := tests/unit/rpc_fault_test.c
rpc_fault_test_LIBS := net base proto llhttp
rpc_fault_test_LD = $(FAULT_LD) $(NET_LD) $(BASE_LD)

# kernel/policy
POLICY_CEL_SRC := $(wildcard kernel/policy/cel*.c) kernel/policy/zone.c
UNIT_TESTS += cel_test regex_test
cel_test_SRC := tests/unit/cel_test.c $(POLICY_CEL_SRC)
cel_test_LIBS := base
cel_test_LD = $(FAULT_LD) $(BASE_LD)
regex_test_SRC := tests/unit/regex_test.c kernel/policy/zone.c
regex_test_LIBS := base
regex_test_LD = $(FAULT_LD) $(BASE_LD)
UNIT_TESTS += pubsub_test
pubsub_test_SRC := tests/unit/pubsub_test.c
pubsub_test_LIBS := kernel trust net base proto llhttp
pubsub_test_LD = $(NET_LD) $(YAML_LD) $(BASE_LD)
UNIT_TESTS += mesh_test
mesh_test_SRC := tests/unit/mesh_test.c
mesh_test_LIBS := kernel trust net base proto llhttp
mesh_test_LD = $(KERNEL_LD)
UNIT_TESTS += resiliency_test
resiliency_test_SRC := tests/unit/resiliency_test.c
resiliency_test_LIBS := kernel trust net base proto llhttp
resiliency_test_LD = $(FAULT_LD) $(KERNEL_LD)
UNIT_TESTS += mqtt_packet_test
mqtt_packet_test_SRC := tests/unit/mqtt_packet_test.c plugins/shared/mqtt/packet.c
mqtt_packet_test_LIBS := base
mqtt_packet_test_LD = $(BASE_LD)
UNIT_TESTS += nats_protocol_test
nats_protocol_test_SRC := tests/unit/nats_protocol_test.c plugins/shared/nats/protocol.c plugins/shared/nats/nkey.c
nats_protocol_test_LIBS := base
nats_protocol_test_LD = -l:libsodium.a $(BASE_LD)
UNIT_TESTS += mdns_packet_test
mdns_packet_test_SRC := tests/unit/mdns_packet_test.c plugins/nameresolution.mdns/packet.c
mdns_packet_test_LIBS := base
mdns_packet_test_LD = $(BASE_LD)

# kernel/blocks: crypto, conversation
UNIT_TESTS += crypto_enc_test
crypto_enc_test_SRC := tests/unit/crypto_enc_test.c
crypto_enc_test_LIBS := kernel trust net base proto llhttp
crypto_enc_test_LD = $(KERNEL_LD)

# sdk/base: schedules
UNIT_TESTS += cron_test
cron_test_SRC := tests/unit/cron_test.c
cron_test_LIBS := base
cron_test_LD = $(BASE_LD)

UNIT_TESTS += semver_test
semver_test_SRC := tests/unit/semver_test.c
semver_test_LIBS := base
semver_test_LD = $(BASE_LD)

# ctl: packages
UNIT_TESTS += package_test
package_test_SRC := tests/unit/package_test.c
package_test_LIBS := ctl trust net base proto llhttp
package_test_LD = $(NET_LD) $(BASE_LD)
UNIT_TESTS += cgroup_test
cgroup_test_SRC := tests/unit/cgroup_test.c
cgroup_test_LIBS := kernel base
cgroup_test_LD = $(BASE_LD)
UNIT_TESTS += tape_test
tape_test_SRC := tests/unit/tape_test.c
tape_test_LIBS := ctl trust net base proto llhttp
tape_test_LD = $(NET_LD) $(BASE_LD)

UNIT_TESTS += template_test
template_test_SRC := tests/unit/template_test.c plugins/middleware.http.routeralias/template.c
template_test_LIBS := base
template_test_LD = $(BASE_LD)
UNIT_TESTS += ledger_test
ledger_test_SRC := tests/unit/ledger_test.c
ledger_test_LIBS := kernel trust base
ledger_test_LD = -l:libmsgpackc.a $(BASE_LD)

UNIT_TESTS += ledger_file_test
ledger_file_test_SRC := tests/unit/ledger_file_test.c
ledger_file_test_LIBS := kernel base
ledger_file_test_LD = -l:libmsgpackc.a $(BASE_LD)
UNIT_TESTS += parsers_fault_test
parsers_fault_test_SRC := tests/unit/parsers_fault_test.c
parsers_fault_test_LIBS := kernel trust net base proto llhttp
parsers_fault_test_LD = $(FAULT_LD) $(NET_LD) $(BASE_LD)
UNIT_TESTS += gunzip_test
gunzip_test_SRC := tests/unit/gunzip_test.c
gunzip_test_LIBS := net base
gunzip_test_LD = $(FAULT_LD) -lz $(BASE_LD)
UNIT_TESTS += endpoint_proxy_test
endpoint_proxy_test_SRC := tests/unit/endpoint_proxy_test.c
endpoint_proxy_test_LIBS := kernel trust net base proto llhttp
endpoint_proxy_test_LD = $(KERNEL_LD)
