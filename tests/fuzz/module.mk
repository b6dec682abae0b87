FUZZERS += flags_fuzz
flags_fuzz_SRC := tests/fuzz/flags_fuzz.c
flags_fuzz_LIBS := base
flags_fuzz_LD = $(BASE_LD)

FUZZERS += json_fuzz pb_fuzz pbjson_fuzz
json_fuzz_SRC := tests/fuzz/json_fuzz.c
json_fuzz_LIBS := base
json_fuzz_LD = $(BASE_LD)
pb_fuzz_SRC := tests/fuzz/pb_fuzz.c
pb_fuzz_LIBS := base proto
pb_fuzz_LD = $(BASE_LD)
pbjson_fuzz_SRC := tests/fuzz/pbjson_fuzz.c
pbjson_fuzz_LIBS := base proto
pbjson_fuzz_LD = $(BASE_LD)

FUZZERS += yaml_fuzz
yaml_fuzz_SRC := tests/fuzz/yaml_fuzz.c
yaml_fuzz_LIBS := kernel trust base
yaml_fuzz_LD = -l:libyaml.a $(BASE_LD)

FUZZERS += http2_fuzz rpc_wire_fuzz
http2_fuzz_SRC := tests/fuzz/http2_fuzz.c
http2_fuzz_LIBS := net base proto llhttp
http2_fuzz_LD = $(NET_LD) $(BASE_LD)
rpc_wire_fuzz_SRC := tests/fuzz/rpc_wire_fuzz.c
rpc_wire_fuzz_LIBS := net base proto llhttp
rpc_wire_fuzz_LD = $(NET_LD) $(BASE_LD)

FUZZERS += http1_fuzz
http1_fuzz_SRC := tests/fuzz/http1_fuzz.c
http1_fuzz_LIBS := net base proto llhttp
http1_fuzz_LD = $(NET_LD) $(BASE_LD)

FUZZERS += state_codec_fuzz
state_codec_fuzz_SRC := tests/fuzz/state_codec_fuzz.c
state_codec_fuzz_LIBS := plugin net base proto llhttp
state_codec_fuzz_LD = $(NET_LD) $(BASE_LD)

FUZZERS += state_body_fuzz
state_body_fuzz_SRC := tests/fuzz/state_body_fuzz.c
state_body_fuzz_LIBS := kernel trust net base proto llhttp
state_body_fuzz_LD = $(NET_LD) $(BASE_LD)

FUZZERS += cel_fuzz regex_fuzz
cel_fuzz_SRC := tests/fuzz/cel_fuzz.c $(wildcard kernel/policy/cel*.c) kernel/policy/zone.c
cel_fuzz_LIBS := base
cel_fuzz_LD = $(BASE_LD)
regex_fuzz_SRC := tests/fuzz/regex_fuzz.c kernel/policy/zone.c
regex_fuzz_LIBS := base
regex_fuzz_LD = $(BASE_LD)

FUZZERS += cloudevent_fuzz
cloudevent_fuzz_SRC := tests/fuzz/cloudevent_fuzz.c kernel/blocks/pubsub/event.c kernel/front/json_fault.c
cloudevent_fuzz_LIBS := net base proto llhttp
cloudevent_fuzz_LD = $(NET_LD) $(BASE_LD)

FUZZERS += crypto_enc_fuzz
crypto_enc_fuzz_SRC := tests/fuzz/crypto_enc_fuzz.c
crypto_enc_fuzz_LIBS := kernel trust net base proto llhttp
crypto_enc_fuzz_LD = $(NET_LD) $(BASE_LD)

FUZZERS += mesh_message_fuzz
mesh_message_fuzz_SRC := tests/fuzz/mesh_message_fuzz.c
mesh_message_fuzz_LIBS := kernel trust net base proto llhttp
mesh_message_fuzz_LD = $(NET_LD) $(BASE_LD)

FUZZERS += cron_fuzz
cron_fuzz_SRC := tests/fuzz/cron_fuzz.c
cron_fuzz_LIBS := base
cron_fuzz_LD = $(BASE_LD)

FUZZERS += trace_fuzz
trace_fuzz_SRC := tests/fuzz/trace_fuzz.c kernel/observe/span_context.c
trace_fuzz_LIBS := base
trace_fuzz_LD = $(BASE_LD)
FUZZERS += nats_fuzz
nats_fuzz_SRC := tests/fuzz/nats_fuzz.c plugins/shared/nats/protocol.c
nats_fuzz_LIBS := base
nats_fuzz_LD = $(BASE_LD)

FUZZERS += mdns_fuzz
mdns_fuzz_SRC := tests/fuzz/mdns_fuzz.c plugins/nameresolution.mdns/packet.c
mdns_fuzz_LIBS := base
mdns_fuzz_LD = $(BASE_LD)

FUZZERS += package_fuzz
package_fuzz_SRC := tests/fuzz/package_fuzz.c
package_fuzz_LIBS := ctl trust net base proto llhttp
package_fuzz_LD = $(NET_LD) $(BASE_LD)
FUZZERS += mail_fuzz sql_rows_fuzz
mail_fuzz_SRC := tests/fuzz/mail_fuzz.c plugins/bindings.smtp/message.c
mail_fuzz_LIBS := base
mail_fuzz_LD = $(BASE_LD)
sql_rows_fuzz_SRC := tests/fuzz/sql_rows_fuzz.c plugins/bindings.postgresql/rows.c
sql_rows_fuzz_LIBS := base
sql_rows_fuzz_LD = $(BASE_LD)

FUZZERS += pipeline_fuzz
pipeline_fuzz_SRC := tests/fuzz/pipeline_fuzz.c
pipeline_fuzz_LIBS := kernel trust net base proto llhttp
pipeline_fuzz_LD = $(NET_LD) $(BASE_LD)
FUZZERS += ledger_fuzz
ledger_fuzz_SRC := tests/fuzz/ledger_fuzz.c
ledger_fuzz_LIBS := kernel trust base
ledger_fuzz_LD = -l:libmsgpackc.a $(BASE_LD)

FUZZERS += tape_fuzz
tape_fuzz_SRC := tests/fuzz/tape_fuzz.c
tape_fuzz_LIBS := ctl trust net base proto llhttp
tape_fuzz_LD = $(NET_LD) $(BASE_LD)

# What strangers say about plugins, who may call what, what brokers, apps, peers and sidecars send.
FUZZERS += manifest_fuzz acl_fuzz mqtt_fuzz prom_fuzz pki_fuzz subscriptions_fuzz package_files_fuzz
manifest_fuzz_SRC := tests/fuzz/manifest_fuzz.c
manifest_fuzz_LIBS := kernel net base proto llhttp
manifest_fuzz_LD = $(NET_LD) $(BASE_LD)
acl_fuzz_SRC := tests/fuzz/acl_fuzz.c
acl_fuzz_LIBS := kernel net base proto llhttp
acl_fuzz_LD = $(NET_LD) $(BASE_LD)
mqtt_fuzz_SRC := tests/fuzz/mqtt_fuzz.c plugins/shared/mqtt/packet.c
mqtt_fuzz_LIBS := base
mqtt_fuzz_LD = $(BASE_LD)
prom_fuzz_SRC := tests/fuzz/prom_fuzz.c ctl/prom.c
prom_fuzz_LIBS := base
prom_fuzz_LD = $(BASE_LD)
pki_fuzz_SRC := tests/fuzz/pki_fuzz.c
pki_fuzz_LIBS := net base llhttp
pki_fuzz_LD = $(NET_LD) $(BASE_LD)
subscriptions_fuzz_SRC := tests/fuzz/subscriptions_fuzz.c
subscriptions_fuzz_LIBS := kernel net base proto llhttp
subscriptions_fuzz_LD = $(NET_LD) $(BASE_LD)
package_files_fuzz_SRC := tests/fuzz/package_files_fuzz.c
package_files_fuzz_LIBS := ctl trust net base proto llhttp
package_files_fuzz_LD = $(NET_LD) $(BASE_LD)
