"""What this project uses of a Consul agent's HTTP API: registration, deregistration, self, health of a service with blocking queries,
tokens. After the API's documentation: names of services and checks keep their case, an index grows with every change, a blocking query
ends at the first change or after `wait`."""
import http.server, json, re, ssl, threading, urllib.parse


class ConsulAgent:
    def __init__(self, token=None, tls=None):
        self.lock = threading.Condition()
        self.index, self.services, self.health, self.asked, self.fail, self.closed = 1, {}, {}, [], 0, False
        agent = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *a):
                pass

            def reply(self, status, body, index=None):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                if index is not None:
                    self.send_header("X-Consul-Index", str(index))
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def handle_one(self):
                url = urllib.parse.urlsplit(self.path)
                q = urllib.parse.parse_qs(url.query, keep_blank_values=True)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if agent.closed:
                    self.close_connection = True
                    return None
                with agent.lock:
                    agent.asked.append((self.command, url.path, q, dict(self.headers)))
                if token and self.headers.get("X-Consul-Token") != token:
                    return self.reply(403, b"Permission denied: token with AccessorID '00000000' lacks permission")
                if agent.fail:
                    return self.reply(agent.fail, b"No cluster leader")
                self.route(url.path, q, body)

            def route(self, path, q, body):
                m = re.fullmatch(r"/v1/health/service/(.+)", path)
                if self.command == "GET" and path == "/v1/agent/self":
                    self.reply(200, {"Config": {"Datacenter": "dc1", "NodeName": "here"}})
                elif self.command == "GET" and m:
                    self.reply(200, *agent.wait(urllib.parse.unquote(m[1]), q))
                elif self.command == "PUT" and path == "/v1/agent/service/register":
                    agent.register(json.loads(body))
                    self.reply(200, b"")
                elif self.command == "PUT" and path.startswith("/v1/agent/service/deregister/"):
                    found = agent.deregister(urllib.parse.unquote(path.rsplit("/", 1)[1]))
                    self.reply(200 if found else 404, b"" if found else b"Unknown service ID")
                else:
                    self.reply(404, b"")

            do_GET = do_PUT = handle_one

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.address = f"127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def changed(self):
        self.index += 1
        self.lock.notify_all()

    def register(self, service, healthy=True):
        with self.lock:
            sid = service.get("ID") or service["Name"]
            self.services[sid], self.health[sid] = service, healthy
            self.changed()

    def deregister(self, sid):
        with self.lock:
            found = self.services.pop(sid, None)
            self.changed()
            return found

    def set_health(self, sid, healthy):
        with self.lock:
            self.health[sid] = healthy
            self.changed()

    def wait(self, name, q):
        """The healthy instances of a service, and the index."""
        seen, limit = int(q.get("index", ["0"])[0]), float(q.get("wait", ["300s"])[0].rstrip("s"))
        with self.lock:
            if seen:
                self.lock.wait_for(lambda: self.index > seen, min(limit, 30))
            out = []
            for sid, s in self.services.items():
                if s["Name"] == name and (self.health[sid] or "passing" not in q):
                    out.append({"Node": {"Node": "here", "Address": "127.0.0.9"},
                                "Service": {"ID": sid, "Service": name, "Tags": s.get("Tags") or [], "Address": s.get("Address", ""),
                                            "Port": s.get("Port", 0), "Meta": s.get("Meta") or {}},
                                "Checks": [{"Status": "passing" if self.health[sid] else "critical"}]})
            return out, self.index

    def questions(self, path):
        with self.lock:
            return [a for a in self.asked if a[1] == path]

    def close(self):
        if self.closed:
            return
        self.closed = True
        with self.lock:
            self.changed()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)
