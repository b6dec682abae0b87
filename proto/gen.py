#!/usr/bin/env python3
"""From the .proto files to C: see module.mk, target `gen`.

usage: gen.py SET OUT REFLECTED FILE...
  SET        FileDescriptorSet of all FILEs and their imports, as protoc wrote it
  OUT        folder for the results (build/gen)
  REFLECTED  comma-separated files that gRPC reflection serves, with all that they import
  FILE...    the .proto files that become C

Results: plain.pb, the set that protoc-c reads (see plain()); registry_tables.c and registry_files.c for proto/registry.h;
json_names.c for sdk/base/pbjson.c. protoc-c itself is run by module.mk.
"""
import os
import sys

# ---- wire format: a message is a list of (field number, wire type, value) ----


def get_varint(b, i):
    v = shift = 0
    while True:
        c = b[i]
        i += 1
        v |= (c & 127) << shift
        shift += 7
        if c < 128:
            return v, i


def put_varint(v):
    out = bytearray()
    while v > 127:
        out.append(v & 127 | 128)
        v >>= 7
    out.append(v)
    return bytes(out)


def parse(b):
    out, i = [], 0
    while i < len(b):
        key, i = get_varint(b, i)
        if key & 7 == 0:
            v, i = get_varint(b, i)
        elif key & 7 == 2:
            n, i = get_varint(b, i)
            v, i = b[i:i + n], i + n
        else:
            n = {1: 8, 5: 4}[key & 7]
            v, i = b[i:i + n], i + n
        out.append((key >> 3, key & 7, v))
    return out


def build(fields):
    out = bytearray()
    for no, wt, v in fields:
        out += put_varint(no << 3 | wt)
        if wt == 0:
            out += put_varint(v)
        else:
            out += (put_varint(len(v)) if wt == 2 else b"") + v
    return bytes(out)


def every(msg, no):
    return [v for n, _, v in msg if n == no]


def one(msg, no, default=b""):
    found = every(msg, no)
    return found[-1] if found else default


def text(msg, no):
    return one(msg, no).decode()


# ---- descriptor.proto, as far as it is needed ----

FILE_NAME, FILE_PACKAGE, FILE_DEPENDENCY, FILE_MESSAGE, FILE_ENUM, FILE_SERVICE, FILE_OPTIONS = 1, 2, 3, 4, 5, 6, 8
MSG_NAME, MSG_FIELD, MSG_NESTED, MSG_ENUM, MSG_OPTIONS = 1, 2, 3, 4, 7
FIELD_NAME, FIELD_JSON_NAME, FIELD_PROTO3_OPTIONAL = 1, 10, 17
MSGOPT_MAP_ENTRY = 7
PB_C_FILE, PB_C_CONST_STRINGS, PB_C_PACKAGE = 1019, 4, 6  # protobuf-c's own file options
NO_PACKAGE = "durabletask"  # C prefix for the one file without a package


def plain(file_bytes):
    """The file as protoc-c 1.4 accepts it, the same on the wire: without services (`rpc Init` clashes with the message
    initialiser x__init), with proto3 `optional` fields as what they are underneath, a oneof of one field, and with strings
    as const char *."""
    def field(b):
        return build([f for f in parse(b) if f[0] != FIELD_PROTO3_OPTIONAL])

    def message(b):
        return build([(n, w, field(v) if n == MSG_FIELD else message(v) if n == MSG_NESTED else v)
                      for n, w, v in parse(b)])
    file = parse(file_bytes)
    pb_c = [(PB_C_CONST_STRINGS, 0, 1)]
    if not one(file, FILE_PACKAGE):
        pb_c.append((PB_C_PACKAGE, 2, NO_PACKAGE.encode()))
    return build([(n, w, message(v) if n == FILE_MESSAGE else v) for n, w, v in file if n != FILE_SERVICE] +
                 [(FILE_OPTIONS, 2, build([(PB_C_FILE, 2, build(pb_c))]))])


def camel(name):
    out, up = "", False
    for c in name:
        if c == "_":
            up = True
        else:
            out, up = out + (c.upper() if up else c), False
    return out


class Schema:
    def __init__(self, files):
        self.messages, self.enums, self.services, self.methods, self.json_names = [], [], [], [], []
        self.file_of, self.no_package = {}, set()
        for f in files:
            name, pkg = text(f, FILE_NAME), text(f, FILE_PACKAGE)
            scope = pkg + "." if pkg else ""
            if not pkg:
                self.no_package.add(name)
            for m in every(f, FILE_MESSAGE):
                self.add_message(name, scope, parse(m))
            for e in every(f, FILE_ENUM):
                self.add(self.enums, name, scope + text(parse(e), 1))
            for s in every(f, FILE_SERVICE):
                self.add_service(name, scope, parse(s))

    def add(self, kind, file, full):
        kind.append(full)
        self.file_of[full] = file

    def add_message(self, file, scope, m):
        full = scope + text(m, MSG_NAME)
        if one(parse(one(m, MSG_OPTIONS)), MSGOPT_MAP_ENTRY, 0):
            return
        self.add(self.messages, file, full)
        for f in map(parse, every(m, MSG_FIELD)):
            name, json = text(f, FIELD_NAME), text(f, FIELD_JSON_NAME)
            if json and json != camel(name):
                self.json_names.append((full, name, json))
        for n in every(m, MSG_NESTED):
            self.add_message(file, full + ".", parse(n))
        for e in every(m, MSG_ENUM):
            self.add(self.enums, file, full + "." + text(parse(e), 1))

    def add_service(self, file, scope, s):
        full = scope + text(s, 1)
        self.add(self.services, file, full)
        for m in map(parse, every(s, 2)):
            self.methods.append((f"/{full}/{text(m, 1)}", text(m, 2)[1:], text(m, 3)[1:], one(m, 5, 0), one(m, 6, 0)))

    def descriptor(self, message):
        prefix = NO_PACKAGE + "." if self.file_of[message] in self.no_package else ""
        return "&%s__descriptor" % c_name(prefix + message)


# ---- C ----

def c_name(full):
    """protoc-c's own rule: a.b.FooBar -> a__b__foo_bar"""
    parts = []
    for part in full.split("."):
        s, was_upper = "", True
        for c in part:
            if c.isupper():
                s += ("" if was_upper else "_") + c.lower()
            else:
                s += c
            was_upper = c.isupper()
        parts.append(s)
    return "__".join(parts)


def c_bytes(b):
    return "".join("%d,%s" % (c, "\n" if i % 32 == 31 else "") for i, c in enumerate(b))


def include(file):
    return '#include "%s.pb-c.h"\n' % file.removesuffix(".proto")


HEAD = "/* Generated by proto/gen.py. */\n"


def tables_c(schema, files):
    messages = sorted(schema.messages)
    out = HEAD + '#include "proto/registry.h"\n' + "".join(map(include, files))
    out += "const ProtobufCMessageDescriptor *const pb_messages[] = {\n"
    out += "".join(schema.descriptor(m) + ",\n" for m in messages)
    out += "};\nconst size_t pb_messages_n = %d;\n" % len(messages)
    out += "const struct pb_method pb_methods[] = {\n"
    for path, req, resp, cs, ss in sorted(schema.methods):
        out += '{"%s", %s, %s, %d, %d},\n' % (path, schema.descriptor(req), schema.descriptor(resp), cs, ss)
    return out + "};\nconst size_t pb_methods_n = %d;\n" % len(schema.methods)


def files_c(schema, by_name, roots):
    names = []

    def walk(name):
        if name not in names:
            for d in every(by_name[name][0], FILE_DEPENDENCY):
                walk(d.decode())
            names.append(name)
    for r in roots:
        walk(r)
    out = HEAD + '#include "proto/registry.h"\n'
    for i, n in enumerate(names):
        deps = [names.index(d.decode()) for d in every(by_name[n][0], FILE_DEPENDENCY)]
        out += "static const uint8_t bytes_%d[] = {\n%s};\n" % (i, c_bytes(by_name[n][1]))
        out += "static const uint16_t deps_%d[] = {%s};\n" % (i, ", ".join(map(str, deps)) or "0")
    out += "const struct pb_file pb_files[] = {\n"
    for i, n in enumerate(names):
        out += '{"%s", bytes_%d, sizeof bytes_%d, deps_%d, %d},\n' % (
            n, i, i, i, len(every(by_name[n][0], FILE_DEPENDENCY)))
    out += "};\nconst size_t pb_files_n = %d;\n" % len(names)
    symbols = sorted(s for s in schema.file_of if schema.file_of[s] in names)
    out += "const struct pb_symbol pb_symbols[] = {\n"
    out += "".join('{"%s", %d},\n' % (s, names.index(schema.file_of[s])) for s in symbols)
    return out + "};\nconst size_t pb_symbols_n = %d;\n" % len(symbols)


def json_names_c(schema):
    rows = sorted(schema.json_names)
    out = HEAD + '#include "proto/registry.h"\nconst struct pb_json_name pb_json_names[] = {\n'
    out += "".join('{"%s", "%s", "%s"},\n' % r for r in rows)
    return out + "};\nconst size_t pb_json_names_n = %d;\n" % len(rows)


def write(path, data):
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())


def main():
    set_path, out, reflected, files = sys.argv[1], sys.argv[2], sys.argv[3].split(","), sys.argv[4:]
    raw = every(parse(open(set_path, "rb").read()), 1)
    by_name = {text(parse(b), FILE_NAME): (parse(b), b) for b in raw}
    write(os.path.join(out, "plain.pb"), build([(1, 2, plain(b)) for b in raw]))
    files = [f for f in files if not f.startswith("test/")]  # messages for unit tests are in no table
    schema = Schema([by_name[f][0] for f in by_name if f in files])
    write(os.path.join(out, "registry_tables.c"), tables_c(schema, files))
    write(os.path.join(out, "registry_files.c"), files_c(schema, by_name, reflected))
    write(os.path.join(out, "json_names.c"), json_names_c(schema))


main()
