// An app for the differential tests: http, https (h2 by ALPN and HTTP/1.1) or h2c. Says each request as a line of JSON.
import http from "node:http"; import http2 from "node:http2"; import fs from "node:fs";
const [protocol, cert, key] = process.argv.slice(2);
function answer(q, r) {
  const parts = [];
  q.on("data", (x) => parts.push(x));
  q.on("error", () => {});
  q.on("end", () => {
    const body = Buffer.concat(parts), path = q.url.split("?")[0];
    console.log(JSON.stringify({ version: q.httpVersion, method: q.method, path: q.url, host: q.headers[":authority"] ?? q.headers.host ?? null,
      scheme: q.headers[":scheme"] ?? null, headers: q.headers, size: body.length }));
    if (path === "/reset") return r.stream ? r.stream.close(2) : q.socket.destroy();
    if (path === "/goaway") { r.stream.session.goaway(); }
    const status = path.startsWith("/dapr/") ? 404 : path === "/fail" ? 500 : 200;
    r.writeHead(status, { "x-one": ["1", "2"], "content-type": "a/b" });
    r.end(path === "/large" ? Buffer.alloc(3000000, 120) : body);
  });
}
const tls = () => ({ cert: fs.readFileSync(cert), key: fs.readFileSync(key), allowHTTP1: true });
const s = protocol === "http" ? http.createServer(answer) : protocol === "h2c" ? http2.createServer(answer) : protocol === "https1" ?
  (await import("node:https")).createServer(tls(), answer) : http2.createSecureServer(tls(), answer);
s.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: s.address().port })));
