"""The app of the delivery test: an HTTP server on one event loop. Each event's number goes to a file before the event is answered, so that
what was taken is known whatever happens to the process.   delivery_app.py PORT PUBSUB TAKEN DEAD"""
import asyncio, json, os, sys

PORT, PUBSUB = int(sys.argv[1]), sys.argv[2]
taken, dead = (os.open(p, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for p in sys.argv[3:5])
SUBSCRIPTIONS = json.dumps([{"pubsubname": PUBSUB, "topic": "orders", "route": "/orders", "deadLetterTopic": "orders-dead"},
                            {"pubsubname": "dead", "topic": "orders-dead", "route": "/dead"}]).encode()


def answer(status, body=b""):
    return b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)


class App(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.buf = transport, b""

    def data_received(self, data):
        self.buf += data
        while (end := self.buf.find(b"\r\n\r\n")) >= 0:
            head = self.buf[:end].lower()
            at = head.find(b"\r\ncontent-length:")
            length = int(head[at + 17:].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buf) < end + 4 + length:
                return
            body, path = self.buf[end + 4:end + 4 + length], head.split(b" ", 2)[1]
            self.buf = self.buf[end + 4 + length:]
            if path == b"/dapr/subscribe":
                self.transport.write(answer(200, SUBSCRIPTIONS))
            elif path in (b"/orders", b"/dead"):
                os.write(taken if path == b"/orders" else dead, b"%d\n" % json.loads(body)["data"])
                self.transport.write(answer(200))
            else:
                self.transport.write(answer(404))


async def main():
    server = await asyncio.get_running_loop().create_server(App, "127.0.0.1", PORT, backlog=500)
    await server.serve_forever()

asyncio.run(main())
