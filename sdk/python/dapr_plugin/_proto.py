"""The wire contracts, read from the .proto files themselves: no generated code. A message is a dict by field name.

Missing fields read as proto3 has it: '' b'' 0 False [] {}; messages, `optional` fields and members of a oneof as None.
"""
import os
import re
import struct

_SCALARS = {"string", "bytes", "bool", "int32", "int64", "uint32", "uint64", "float", "double"}
_FIXED = {"double": (1, "<d", 8), "float": (5, "<f", 4)}
_MAX_DEPTH = 64


class WireError(ValueError):
    """The bytes are no such message."""


class _Field:
    __slots__ = ("name", "number", "type", "repeated", "optional", "key")

    def __init__(self, name, number, type_, repeated=False, optional=False, key=None):
        self.name, self.number, self.type = name, number, type_
        self.repeated, self.optional, self.key = repeated, optional, key


class Protos:
    """All messages and methods of a folder of .proto files."""

    def __init__(self, folder, files):
        self.messages, self.enums, self.methods = {}, set(), {}
        for name in files:
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                self._read(f.read())
        for name, fields in self.messages.items():
            for f in fields:
                f.type = self._resolve(name, f.type)
        self._by_number = {name: {f.number: f for f in fields} for name, fields in self.messages.items()}

    # ---- reading .proto ----

    def _read(self, text):
        text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.S)
        tokens = re.findall(r'"[^"]*"|[\w.]+|[{}=;<>,()\[\]]', text)
        self._package, at = "", 0
        while at < len(tokens):
            word = tokens[at]
            if word == "package":
                self._package = tokens[at + 1]
            if word == "message":
                at = self._message(tokens, at + 1, self._package)
            elif word == "enum":
                at = self._enum(tokens, at + 1, self._package)
            elif word == "service":
                at = self._service(tokens, at + 1)
            else:
                at = tokens.index(";", at) + 1

    def _enum(self, tokens, at, scope):
        self.enums.add(f"{scope}.{tokens[at]}")
        return tokens.index("}", at) + 1

    def _service(self, tokens, at):
        service = f"{self._package}.{tokens[at]}"
        at += 2
        while tokens[at] != "}":
            end = tokens.index(")", tokens.index(")", at) + 1) + 1
            words = [t for t in tokens[at:end] if t not in "()"]
            types = [w for w in words[2:] if w not in ("returns", "stream")]
            # a dotted name is whole already; the contracts import nothing under a relative name
            full = [t if t.startswith(("dapr.", "google.", "grpc.", "microdapr.")) else f"{self._package}.{t}" for t in types]
            self.methods[f"/{service}/{words[1]}"] = (full[0], full[1], "stream" in words)
            at = end
            if tokens[at] == "{":
                at = tokens.index("}", at)
            at += 1
        return at + 1

    def _message(self, tokens, at, scope):
        name = f"{scope}.{tokens[at]}"
        fields, oneof = self.messages.setdefault(name, []), False
        at += 2
        while tokens[at] != "}" or oneof:
            word = tokens[at]
            if word == "}":
                oneof = False
                at += 1
            elif word == "message":
                at = self._message(tokens, at + 1, name)
            elif word == "enum":
                at = self._enum(tokens, at + 1, name)
            elif word == "oneof":
                oneof = True
                at += 3
            elif word in ("reserved", "option"):
                at = tokens.index(";", at) + 1
            else:
                end = tokens.index(";", at)
                fields.append(self._field(tokens[at:end], oneof))
                at = end + 1
        return at + 1

    @staticmethod
    def _field(t, oneof):
        if t[0] == "map":
            return _Field(t[6], int(t[8]), t[4], key=t[2])
        label = t.pop(0) if t[0] in ("repeated", "optional") else ""
        return _Field(t[1], int(t[3]), t[0], label == "repeated", oneof or label == "optional")

    def _resolve(self, scope, type_):
        if type_ in _SCALARS:
            return type_
        parts = scope.split(".")
        for n in range(len(parts), -1, -1):
            name = ".".join(parts[:n] + [type_])
            if name in self.messages:
                return name
            if name in self.enums:
                return "int32"
        return "bytes"  # of a file that is not shipped: passed on as it is

    # ---- writing ----

    def encode(self, name, message):
        out = bytearray()
        for f in self.messages[name]:
            v = message.get(f.name)
            if v is None:
                continue
            if f.key:
                for k, one in v.items():
                    self._value(out, f.number, "bytes", bytes(self._pair(f, k, one)))
            elif f.repeated:
                for one in v:
                    self._value(out, f.number, f.type, one)
            elif f.optional or f.type in self.messages or v:
                self._value(out, f.number, f.type, v)
        return bytes(out)

    def _pair(self, f, key, value):
        out = bytearray()
        self._value(out, 1, f.key, key)
        self._value(out, 2, f.type, value)
        return out

    def _value(self, out, number, type_, v):
        if type_ in _FIXED:
            wire, fmt, _ = _FIXED[type_]
            _varint(out, number << 3 | wire)
            out += struct.pack(fmt, v)
        elif type_ in _SCALARS and type_ not in ("string", "bytes"):
            _varint(out, number << 3)
            _varint(out, int(v) & 0xFFFFFFFFFFFFFFFF)
        else:
            data = v.encode() if type_ == "string" else bytes(v) if type_ == "bytes" else self.encode(type_, v)
            _varint(out, number << 3 | 2)
            _varint(out, len(data))
            out += data

    # ---- reading ----

    def decode(self, name, data, depth=0):
        if depth > _MAX_DEPTH:
            raise WireError("too deep")
        message = {f.name: {} if f.key else [] if f.repeated else None if f.optional or f.type in self.messages else _zero(f.type)
                   for f in self.messages[name]}
        known, at = self._by_number[name], 0
        while at < len(data):
            tag, at = _read_varint(data, at)
            if not tag >> 3:
                raise WireError("field number 0")
            v, at = _read_raw(data, at, tag & 7)
            f = known.get(tag >> 3)
            if f is None:
                continue
            if f.key:
                message[f.name].update([self._read_pair(f, v, tag & 7, depth)])
            elif f.repeated:
                message[f.name] += self._read_list(f, v, tag & 7, depth)
            else:
                message[f.name] = self._read_value(f.type, v, tag & 7, depth)
        return message

    def _read_list(self, f, v, wire, depth):
        if wire != 2 or f.type in ("string", "bytes") or f.type in self.messages:
            return [self._read_value(f.type, v, wire, depth)]
        out, at, want = [], 0, _FIXED.get(f.type, (0,))[0]
        while at < len(v):
            one, at = _read_raw(v, at, want)
            out.append(self._read_value(f.type, one, want, depth))
        return out

    def _read_pair(self, f, v, wire, depth):
        if wire != 2:
            raise WireError(f.name)
        key, value, at = _zero(f.key), None, 0
        while at < len(v):
            tag, at = _read_varint(v, at)
            one, at = _read_raw(v, at, tag & 7)
            if tag >> 3 == 1:
                key = self._read_value(f.key, one, tag & 7, depth)
            elif tag >> 3 == 2:
                value = self._read_value(f.type, one, tag & 7, depth)
        if value is None:
            value = self.decode(f.type, b"") if f.type in self.messages else _zero(f.type)
        return key, value

    def _read_value(self, type_, v, wire, depth):
        want = _FIXED[type_][0] if type_ in _FIXED else 2 if type_ in ("string", "bytes") or type_ in self.messages else 0
        if wire != want:
            raise WireError(type_)
        if type_ == "string":
            try:
                return bytes(v).decode()
            except UnicodeDecodeError:
                raise WireError("no UTF-8") from None
        if type_ == "bytes":
            return bytes(v)
        if type_ in _FIXED:
            return struct.unpack(_FIXED[type_][1], v)[0]
        if type_ == "bool":
            return v != 0
        if type_ in ("int32", "int64"):
            bits = 32 if type_ == "int32" else 64
            v &= (1 << bits) - 1
            return v - (1 << bits) if v >> (bits - 1) else v
        if type_ == "uint32":
            return v & 0xFFFFFFFF
        return v if type_ == "uint64" else self.decode(type_, v, depth + 1)


def _zero(type_):
    return {"string": "", "bytes": b"", "bool": False, "float": 0.0, "double": 0.0}.get(type_, 0)


def _varint(out, n):
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)


def _read_varint(data, at):
    n = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise WireError("cut off")
        b = data[at]
        at += 1
        n |= (b & 0x7F) << shift
        if b < 0x80:
            return n & 0xFFFFFFFFFFFFFFFF, at
        shift += 7


def _read_raw(data, at, wire):
    if wire == 0:
        return _read_varint(data, at)
    if wire == 2:
        n, at = _read_varint(data, at)
    else:
        n = {1: 8, 5: 4}.get(wire, -1)
    if n < 0 or n > len(data) - at:
        raise WireError("cut off")
    return memoryview(data)[at:at + n], at + n
