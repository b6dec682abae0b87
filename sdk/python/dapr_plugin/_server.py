"""gRPC on an asyncio listener: HTTP/2 by the h2 package, length-prefixed messages, status in trailers."""
import asyncio
import base64
import struct
import time
import urllib.parse

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

CANCELED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, RESOURCE_EXHAUSTED, \
    FAILED_PRECONDITION = range(1, 10)
UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 12, 13, 14

_MAX_STREAMS, _STREAM_WINDOW, _CONNECTION_WINDOW, _READ_BYTES = 10000, 1 << 20, 16 << 20, 256 * 1024
_UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "S": 1.0, "M": 60.0, "H": 3600.0}


class PluginError(Exception):
    """A documented outcome: what the caller sees. Any other exception is answered as Internal with its text."""

    def __init__(self, code, message, details=b"", etag=""):
        super().__init__(message)
        self.code, self.message, self.details, self.etag = code, message, details, etag


class Stream:
    """One call in progress."""

    def __init__(self, connection, number, headers):
        self.connection, self.number, self.headers = connection, number, headers
        self.buffer, self.messages, self.ended = bytearray(), asyncio.Queue(), False
        self.window, self.task, self.answered = asyncio.Event(), None, False
        timeout = headers.get("grpc-timeout", "")
        self.deadline = None
        if timeout[:-1].isdigit() and timeout[-1:] in _UNITS:
            self.deadline = time.monotonic() + int(timeout[:-1]) * _UNITS[timeout[-1]]

    @property
    def instance(self):
        """Name of the component that the call is for."""
        name = self.headers.get("x-component-instance")
        raw = self.headers.get("x-component-instance-bin")
        return name if name is not None or raw is None else base64.b64decode(raw + "=" * (-len(raw) % 4)).decode()

    def feed(self, data):
        self.buffer += data
        while len(self.buffer) >= 5:
            flag, size = struct.unpack(">BI", self.buffer[:5])
            if len(self.buffer) < 5 + size:
                break
            self.messages.put_nowait(PluginError(UNIMPLEMENTED, "compressed messages are not taken") if flag else bytes(self.buffer[5:5 + size]))
            del self.buffer[:5 + size]

    def end(self):
        if not self.ended:
            self.ended = True
            self.messages.put_nowait(None)

    async def recv(self):
        """The next message's bytes; None when the caller has sent its last."""
        m = await self.messages.get()
        if m is None:
            self.messages.put_nowait(None)
        elif isinstance(m, PluginError):
            raise m
        return m

    async def send(self, message):
        self.begin()
        await self.connection.write(self, struct.pack(">BI", 0, len(message)) + message)

    def begin(self):
        if not self.answered:
            self.answered = True
            self.connection.h2.send_headers(self.number, [(":status", "200"), ("content-type", "application/grpc")])

    def finish(self, error):
        status = [("grpc-status", str(error.code if error else 0))]
        if error:
            status.append(("grpc-message", urllib.parse.quote(error.message, safe=" !#$&'()*+,/:;=?@[]^`{|}~\"<>")))
            if error.details:
                status.append(("grpc-status-details-bin", base64.b64encode(error.details).decode().rstrip("=")))
        if not self.answered:
            status = [(":status", "200"), ("content-type", "application/grpc")] + status
        self.connection.h2.send_headers(self.number, status, end_stream=True)
        self.connection.flush()


class Connection:
    def __init__(self, reader, writer, serve):
        self.reader, self.writer, self.serve, self.streams = reader, writer, serve, {}
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.writer.write(data)

    async def write(self, stream, data):
        while data:
            room = min(self.h2.local_flow_control_window(stream.number), self.h2.max_outbound_frame_size)
            if room <= 0:
                stream.window.clear()
                await stream.window.wait()
                continue
            self.h2.send_data(stream.number, data[:room])
            data = data[room:]
            self.flush()
            await self.writer.drain()

    async def run(self):
        self.h2.local_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = _MAX_STREAMS
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW})
        self.h2.increment_flow_control_window(_CONNECTION_WINDOW)
        self.flush()
        try:
            while True:
                data = await self.reader.read(_READ_BYTES)
                if not data:
                    break
                for event in self.h2.receive_data(data):
                    self.take(event)
                self.flush()
        except (h2.exceptions.ProtocolError, OSError):
            self.flush()
        finally:
            for s in list(self.streams.values()):
                s.task.cancel()
            self.writer.close()

    def take(self, event):
        s = self.streams.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.RequestReceived):
            s = Stream(self, event.stream_id, dict(event.headers))
            self.streams[event.stream_id] = s
            s.task = asyncio.ensure_future(self.call(s))
        elif isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if s:
                s.feed(event.data)
        elif isinstance(event, h2.events.StreamEnded) and s:
            s.end()
        elif isinstance(event, h2.events.StreamReset) and s:
            s.task.cancel()
        elif isinstance(event, (h2.events.WindowUpdated, h2.events.RemoteSettingsChanged)):
            for one in [s] if s else list(self.streams.values()):
                one.window.set()

    async def call(self, s):
        error = None
        try:
            await asyncio.wait_for(self.serve(s), s.deadline and s.deadline - time.monotonic())
        except PluginError as e:
            error = e
        except asyncio.TimeoutError:
            error = PluginError(DEADLINE_EXCEEDED, "the call took longer than its caller waits")
        except asyncio.CancelledError:
            self.streams.pop(s.number, None)
            raise
        except Exception as e:  # a failed call, not a failed process
            error = PluginError(INTERNAL, str(e) or type(e).__name__)
        self.streams.pop(s.number, None)
        try:
            s.finish(error)
        except h2.exceptions.ProtocolError:
            pass  # the caller is gone
