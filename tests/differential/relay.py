"""The recording relay between lbproxy and a backend, and the recorder that stands behind a backend that is a proxy.

Every connection of a relay goes on from a loopback address of its own, so that whatever a backend logs for an address
belongs to exactly one recorded stream of bytes; a port could be used again.
"""

import asyncio
import contextlib
import itertools
import socket
import struct

import wire


class Connection:
    """What went over one connection from lbproxy to a backend."""

    def __init__(self, serial):
        self.peer = f"127.{16 + (serial >> 16)}.{serial >> 8 & 255}.{serial & 255}"
        self.data = bytearray()
        # (offset, tag): from this offset on bytes came while that input was being played.
        self.marks = []
        # Bytes that came behind this offset met a backend that had already closed.
        self.closed_at = None

    def tag_at(self, offset):
        """The input during which the byte at `offset` came."""
        return next((tag for start, tag in reversed(self.marks) if start <= offset), None)


class Relay:
    """Listens for lbproxy and goes on to one backend."""

    serials = itertools.count(1)

    def __init__(self, backend_port):
        self.backend_port = backend_port
        self.connections = []
        self.tag = None
        self._fronts = set()
        self._server = None

    async def start(self):
        """Listens; returns the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Front(self), "127.0.0.1", 0, backlog=128)
        return self._server.sockets[0].getsockname()[1]

    def opened(self):
        """A new connection of lbproxy."""
        connection = Connection(next(self.serials))
        self.connections.append(connection)
        return connection

    def cut_all(self):
        """Ends all connections, so that one that is out of step spoils nothing further."""
        for front in list(self._fronts):
            front.transport.abort()

    def stop(self):
        """Stops listening and ends all connections."""
        self._server.close()
        self.cut_all()


class _Front(asyncio.Protocol):
    """The side of lbproxy."""

    def __init__(self, relay):
        self._relay = relay
        self._back = None
        self._early = bytearray()
        self._ended = False
        self.transport = None
        self.connection = relay.opened()

    def connection_made(self, transport):
        self.transport = transport
        self._relay._fronts.add(self)
        self._task = asyncio.ensure_future(self._connect())

    async def _connect(self):
        loop = asyncio.get_running_loop()
        try:
            back, _ = await loop.create_connection(
                lambda: _Back(self), "127.0.0.1", self._relay.backend_port, local_addr=(self.connection.peer, 0)
            )
        except OSError:
            self.connection.closed_at = 0
            self.transport.abort()
            return
        self._back = back
        back.write(bytes(self._early))
        if self._ended:
            self._end_back()

    def data_received(self, data):
        connection = self.connection
        if not connection.marks or connection.marks[-1][1] != self._relay.tag:
            connection.marks.append((len(connection.data), self._relay.tag))
        connection.data += data
        if self._back is None:
            self._early += data
        elif not self._back.is_closing():
            self._back.write(data)

    def eof_received(self):
        self._ended = True
        if self._back is not None:
            self._end_back()
        return True

    def _end_back(self):
        # The backend may have gone in the meantime.
        with contextlib.suppress(OSError):
            if not self._back.is_closing():
                self._back.write_eof()

    def connection_lost(self, error):
        self._relay._fronts.discard(self)
        self._ended = True
        if self._back is not None:
            close(self._back, error)

    def backend_ended(self, error=None):
        """The backend sends no more."""
        if self.connection.closed_at is None:
            self.connection.closed_at = len(self.connection.data)
        close(self.transport, error)


class _Back(asyncio.Protocol):
    """The side of the backend."""

    def __init__(self, front):
        self._front = front

    def data_received(self, data):
        if not self._front.transport.is_closing():
            self._front.transport.write(data)

    def eof_received(self):
        self._front.backend_ended()

    def connection_lost(self, error):
        self._front.backend_ended(error)


def close(transport, error):
    """Closes; with a reset if the other side was reset, since a backend can tell a cut body by that."""
    if isinstance(error, ConnectionResetError) and not transport.is_closing():
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()


class Recorder:
    """A strict server behind nginx, HAProxy and Apache: what they send here is what they understood.

    They name each request by an id of their own in X-Seen-Id, which also stands in their access logs.
    """

    def __init__(self):
        self.by_id = {}
        self.faults = []
        self._server = None

    async def start(self):
        """Listens; returns the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Recording(self), "127.0.0.1", 0, backlog=128)
        return self._server.sockets[0].getsockname()[1]

    def stop(self):
        """Stops listening."""
        self._server.close()


class _Recording(asyncio.Protocol):
    def __init__(self, recorder):
        self._recorder = recorder
        self._buffer = bytearray()
        self._continued = False
        self._transport = None

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        self._buffer += data
        try:
            while self._take_request():
                pass
        except wire.Fault as fault:
            self._recorder.faults.append((str(fault), bytes(self._buffer)))
            self._transport.abort()

    def _take_request(self):
        if not wire.head_is_complete(self._buffer):
            return False
        request = wire.read_request(self._buffer)
        if not request.complete:
            if request.get("expect") and not self._continued:
                self._continued = True
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return False
        del self._buffer[: request.end]
        self._continued = False
        self._recorder.by_id[request.get("x-seen-id")] = request
        self._transport.write(answer(request))
        return bool(self._buffer)


def answer(request):
    """The response that every backend gives: it says by X-Saw which request it belongs to."""
    body = b"" if request.method == "HEAD" else b"seen\n"
    saw = (request.get("x-request-id") or "-").encode("latin-1")
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Saw: " + saw + b"\r\nContent-Length: 5\r\n\r\n" + body
