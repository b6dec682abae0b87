# The wire contracts. build/gen/%.pb-c.[ch] come from proto/%.proto and from Google's well-known types, by way of a descriptor
# set that gen.py edits for protoc-c. One stamp for all; a result whose text is unchanged keeps its time, so that an edit of one
# .proto file recompiles only what uses it.
PROTO_LIST := $(sort $(patsubst proto/%,%,$(shell find proto -name '*.proto'))) \
              $(patsubst %,google/protobuf/%.proto,any duration empty struct timestamp wrappers)
PROTO_REFLECTED := dapr/proto/runtime/v1/dapr.proto,dapr/proto/runtime/v1/appcallback.proto,$\
                   durabletask/orchestrator_service.proto,$\
                   grpc/reflection/v1/reflection.proto,grpc/reflection/v1alpha/reflection.proto
PROTO_GEN_C := $(PROTO_LIST:%.proto=$(GEN)/%.pb-c.c) $(addprefix $(GEN)/,registry_tables.c registry_files.c json_names.c)
PROTO_GEN_H := $(PROTO_LIST:%.proto=$(GEN)/%.pb-c.h)
PROTO_STAMP := $(GEN)/.stamp

LIBS += proto
proto_SRC := $(PROTO_GEN_C) proto/registry.c

gen: $(PROTO_STAMP) ## generate C from the .proto files
$(PROTO_GEN_C) $(PROTO_GEN_H): $(PROTO_STAMP)
	@:
$(PROTO_STAMP): proto/gen.py proto/module.mk $(wildcard $(PROTO_LIST:%=proto/%))
	@echo "  GEN  $(words $(PROTO_LIST)) .proto files"
	@mkdir -p $(GEN)
	@new=$$(mktemp -d $(GEN)/.new.XXXXXX) && trap 'rm -rf "$$new"' EXIT && \
	protoc -Iproto -I/usr/include --include_imports --descriptor_set_out="$$new/all.pb" $(PROTO_LIST) && \
	python3 proto/gen.py "$$new/all.pb" "$$new" $(PROTO_REFLECTED) $(PROTO_LIST) && \
	protoc-c --descriptor_set_in="$$new/plain.pb" --c_out="$$new" $(PROTO_LIST) && \
	(cd "$$new" && find . -name '*.[ch]') | while read -r f; do \
		mkdir -p "$(GEN)/$${f%/*}"; cmp -s "$$new/$$f" "$(GEN)/$$f" || mv "$$new/$$f" "$(GEN)/$$f"; done
	@touch $@
