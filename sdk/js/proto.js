'use strict';
// The wire contracts, read from the .proto files themselves: no generated code. A message is an object by field name, as the files
// spell it. Missing fields read as proto3 has it: '' empty Buffer false 0 [] {}; messages, optional fields, members of a oneof: null.
const fs = require('fs');
const path = require('path');

const VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5;
const WIRE = {string: BYTES, bytes: BYTES, bool: VARINT, int32: VARINT, int64: VARINT, uint32: VARINT, uint64: VARINT, double: FIXED64, float: FIXED32};
const MAX_DEPTH = 64;

class WireError extends Error {}

class Protos {
  constructor(folder, files) {
    this.messages = new Map();
    this.enums = new Set();
    this.methods = new Map();
    for (const f of files) this.read(fs.readFileSync(path.join(folder, f), 'utf8'));
    for (const [name, fields] of this.messages) for (const f of fields.values()) f.type = this.resolve(name, f.type);
  }

  // ---- reading .proto ----

  read(text) {
    const t = text.replace(/\/\/[^\n]*|\/\*[^]*?\*\//g, '').match(/"[^"]*"|[\w.]+|[{}=;<>,()[\]]/g) || [];
    this.pkg = '';
    for (let at = 0; at < t.length;) {
      if (t[at] === 'package') this.pkg = t[at + 1];
      if (t[at] === 'message') at = this.message(t, at + 1, this.pkg);
      else if (t[at] === 'enum') at = this.enumeration(t, at + 1, this.pkg);
      else if (t[at] === 'service') at = this.service(t, at + 1);
      else at = t.indexOf(';', at) + 1;
    }
  }

  enumeration(t, at, scope) {
    this.enums.add(`${scope}.${t[at]}`);
    return t.indexOf('}', at) + 1;
  }

  service(t, at) {
    const service = `${this.pkg}.${t[at]}`;
    for (at += 2; t[at] !== '}'; at++) {
      const end = t.indexOf(')', t.indexOf(')', at) + 1) + 1;
      const words = t.slice(at, end).filter((w) => w !== '(' && w !== ')');
      const [input, output] = words.slice(2).filter((w) => w !== 'returns' && w !== 'stream')
        .map((w) => (/^(dapr|google|grpc|microdapr)\./.test(w) ? w : `${this.pkg}.${w}`));
      this.methods.set(`/${service}/${words[1]}`, {input, output});
      at = t[end] === '{' ? t.indexOf('}', end) : end;
    }
    return at + 1;
  }

  message(t, at, scope) {
    const name = `${scope}.${t[at]}`, fields = new Map();
    let oneof = false;
    this.messages.set(name, fields);
    for (at += 2; t[at] !== '}' || oneof;) {
      if (t[at] === '}') { oneof = false; at++; }
      else if (t[at] === 'message') at = this.message(t, at + 1, name);
      else if (t[at] === 'enum') at = this.enumeration(t, at + 1, name);
      else if (t[at] === 'oneof') { oneof = true; at += 3; }
      else {
        const end = t.indexOf(';', at);
        if (t[at] !== 'reserved' && t[at] !== 'option') {
          const f = this.field(t.slice(at, end), oneof);
          fields.set(f.number, f);
        }
        at = end + 1;
      }
    }
    return at + 1;
  }

  field(t, oneof) {
    if (t[0] === 'map') return {name: t[6], number: +t[8], type: t[4], key: t[2]};
    const label = t[0] === 'repeated' || t[0] === 'optional' ? t.shift() : '';
    return {name: t[1], number: +t[3], type: t[0], repeated: label === 'repeated', optional: oneof || label === 'optional'};
  }

  resolve(scope, type) {
    if (type in WIRE) return type;
    const parts = scope.split('.');
    for (let n = parts.length; n >= 0; n--) {
      const name = [...parts.slice(0, n), type].join('.');
      if (this.messages.has(name)) return name;
      if (this.enums.has(name)) return 'int32';
    }
    return 'bytes'; // of a file that is not shipped: passed on as it is
  }

  // ---- writing ----

  encode(name, m) {
    const out = [];
    for (const f of this.messages.get(name).values()) {
      const v = m[f.name];
      if (v === undefined || v === null) continue;
      if (f.key) {
        for (const [k, one] of Object.entries(v)) {
          const pair = [];
          this.value(pair, 1, f.key, k);
          this.value(pair, 2, f.type, one);
          this.value(out, f.number, 'bytes', Buffer.concat(pair));
        }
      } else if (f.repeated) for (const one of v) this.value(out, f.number, f.type, one);
      else if (f.optional || this.messages.has(f.type) || (f.type === 'bytes' ? v.length : v)) this.value(out, f.number, f.type, v);
    }
    return Buffer.concat(out);
  }

  value(out, number, type, v) {
    const wire = WIRE[type] ?? BYTES;
    out.push(varint(number * 8 + wire));
    if (wire === VARINT) out.push(varint(BigInt.asUintN(64, BigInt(v))));
    else if (wire === BYTES) {
      const data = type === 'string' ? Buffer.from(v) : type === 'bytes' ? Buffer.from(v) : this.encode(type, v);
      out.push(varint(data.length), data);
    } else {
      const b = Buffer.alloc(wire === FIXED64 ? 8 : 4);
      if (wire === FIXED64) b.writeDoubleLE(v); else b.writeFloatLE(v);
      out.push(b);
    }
  }

  // ---- reading ----

  decode(name, data, depth = 0) {
    if (depth > MAX_DEPTH) throw new WireError('too deep');
    const fields = this.messages.get(name), m = {};
    for (const f of fields.values()) m[f.name] = f.key ? {} : f.repeated ? [] : f.optional || this.messages.has(f.type) ? null : zero(f.type);
    const r = {data, at: 0};
    while (r.at < data.length) {
      const tag = Number(readVarint(r)), raw = readRaw(r, tag & 7), f = fields.get(Math.floor(tag / 8));
      if (tag < 8) throw new WireError('field number 0');
      if (!f) continue;
      if (f.key) {
        const [k, v] = this.pair(f, raw, tag & 7, depth);
        Object.defineProperty(m[f.name], k, {value: v, enumerable: true, writable: true, configurable: true});
      } else if (f.repeated) m[f.name].push(...this.list(f, raw, tag & 7, depth));
      else m[f.name] = this.read1(f.type, raw, tag & 7, depth);
    }
    return m;
  }

  list(f, raw, wire, depth) {
    const want = WIRE[f.type] ?? BYTES;
    if (wire !== BYTES || want === BYTES) return [this.read1(f.type, raw, wire, depth)];
    const out = [];
    for (const r = {data: raw, at: 0}; r.at < raw.length;) out.push(this.read1(f.type, readRaw(r, want), want, depth));
    return out;
  }

  pair(f, raw, wire, depth) {
    if (wire !== BYTES) throw new WireError(f.name);
    let key = zero(f.key), value = this.messages.has(f.type) ? this.decode(f.type, Buffer.alloc(0)) : zero(f.type);
    for (const r = {data: raw, at: 0}; r.at < raw.length;) {
      const tag = Number(readVarint(r)), one = readRaw(r, tag & 7);
      if (tag >> 3 === 1) key = this.read1(f.key, one, tag & 7, depth);
      else if (tag >> 3 === 2) value = this.read1(f.type, one, tag & 7, depth);
    }
    return [key, value];
  }

  read1(type, raw, wire, depth) {
    if (wire !== (WIRE[type] ?? BYTES)) throw new WireError(type);
    switch (type) {
      case 'string': return raw.toString();
      case 'bytes': return Buffer.from(raw);
      case 'double': return raw.readDoubleLE();
      case 'float': return raw.readFloatLE();
      case 'bool': return raw !== 0n;
      case 'int32': return Number(BigInt.asIntN(32, raw));
      case 'uint32': return Number(BigInt.asUintN(32, raw));
      case 'int64': return Number(BigInt.asIntN(64, raw));
      case 'uint64': return Number(raw);
      default: return this.decode(type, raw, depth + 1);
    }
  }
}

const zero = (type) => (type === 'string' ? '' : type === 'bytes' ? Buffer.alloc(0) : type === 'bool' ? false : 0);

function varint(n) {
  const out = [];
  for (n = BigInt(n); n > 0x7fn; n >>= 7n) out.push(Number(n & 0x7fn) | 0x80);
  return Buffer.from([...out, Number(n)]);
}

function readVarint(r) {
  let n = 0n;
  for (let shift = 0n; ; shift += 7n) {
    if (r.at >= r.data.length || shift > 63n) throw new WireError('cut off');
    const b = r.data[r.at++];
    n |= BigInt(b & 0x7f) << shift;
    if (b < 0x80) return BigInt.asUintN(64, n);
  }
}

function readRaw(r, wire) {
  if (wire === VARINT) return readVarint(r);
  const n = wire === BYTES ? Number(readVarint(r)) : wire === FIXED64 ? 8 : wire === FIXED32 ? 4 : -1;
  if (n < 0 || n > r.data.length - r.at) throw new WireError('cut off');
  r.at += n;
  return r.data.subarray(r.at - n, r.at);
}

module.exports = {Protos, WireError};
