/*
 * What the .proto files say, as tables: methods by path, messages by name, and the serialized file descriptors that gRPC
 * reflection serves. Generated from the descriptor set by proto/gen.py; only the look-ups are written by hand.
 *
 * A program that uses pb_method_find or pb_message_find links the descriptors of all messages, one that does not links only
 * those that it names. pbjson knows pb_message_find only when the program uses it somewhere (see pbjson.h).
 */
#ifndef PROTO_REGISTRY_H
#define PROTO_REGISTRY_H

#include <protobuf-c/protobuf-c.h>

#include "sdk/base/str.h"

struct pb_method {
        const char *path; /* "/dapr.proto.runtime.v1.Dapr/GetState" */
        const ProtobufCMessageDescriptor *request, *response;
        bool client_streaming, server_streaming;
};
struct pb_file {
        const char *name; /* "dapr/proto/runtime/v1/dapr.proto" */
        const uint8_t *bytes; /* a FileDescriptorProto */
        size_t bytes_n;
        const uint16_t *deps; /* indexes into pb_files; imports stand before their importers */
        size_t deps_n;
};
struct pb_symbol {
        const char *name; /* a service, message or enum */
        uint16_t file;    /* index into pb_files */
};
struct pb_json_name {
        const char *message, *field, *json;
};

/* All sorted by their first member but pb_files. */
extern const struct pb_method pb_methods[];
extern const size_t pb_methods_n;
extern const ProtobufCMessageDescriptor *const pb_messages[];
extern const size_t pb_messages_n;
extern const struct pb_file pb_files[]; /* the runtime's API and the app's, not the control plane's */
extern const size_t pb_files_n;
extern const struct pb_symbol pb_symbols[];
extern const size_t pb_symbols_n;
/* Fields whose json_name is not the lowerCamelCase of their name. Sorted by message, then field. */
extern const struct pb_json_name pb_json_names[];
extern const size_t pb_json_names_n;

/* NULL when there is none. */
const struct pb_method *pb_method_find(struct str path);
/* Full name without a leading dot. Map entries are not found. */
const ProtobufCMessageDescriptor *pb_message_find(struct str full_name);
const struct pb_file *pb_file_find(struct str name);
/* The file that declares a service, method ("pkg.Service.Method"), message or enum. */
const struct pb_file *pb_file_of_symbol(struct str symbol);

#endif
