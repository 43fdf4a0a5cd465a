"""A lane leads from a listener of lbproxy through a relay to one door of a backend, and plays inputs one by one.

An input is sent on a client connection of its own. When the answers have fallen silent, an ordinary request follows on
the same connection and asks for its end: it is the tail that a smuggled request would swallow. Then a probe on a
connection of its own must get its own answer, over whichever pooled connection lbproxy takes.
"""

import asyncio
import re
from dataclasses import dataclass, field

from processes import Failure

# How long the answers must be silent before the tail is sent, and the pause between two pieces of an input. No verdict
# depends on them, only how much is sent in one go.
SILENCE = 0.02
PAUSE = 0.003
# lbproxy ends every connection long before this.
PATIENCE = 20.0

TAIL = b"GET /tail-%d HTTP/1.1\r\nHost: tail.example\r\nConnection: close\r\n\r\n"
PROBE = b"GET /probe-%d HTTP/1.1\r\nHost: probe.example\r\nConnection: close\r\n\r\n"
SAW = re.compile(rb"\r\nx-saw: ([^\r\n]*)\r\n", re.IGNORECASE)


@dataclass
class Play:
    """What became of one input on one lane."""

    number: int
    input: object
    answers: bytes = b""
    probe_answer: bytes = b""
    problems: list = field(default_factory=list)

    def saw(self):
        """Ids of the requests that backends answered, as the client got them."""
        return [value.decode("latin-1") for value in SAW.findall(self.answers)]


class Lane:
    """See the module."""

    def __init__(self, name, door, peer, trusted, relay):
        self.name = name
        self.door = door
        self.peer = peer
        self.trusted = trusted
        self.relay = relay
        self.port = None
        self.plays = []

    async def play_all(self, inputs):
        """Plays the inputs in order."""
        for number, one in enumerate(inputs):
            play = Play(number, one)
            self.plays.append(play)
            try:
                await self._play(play)
            except OSError as error:
                before = self.plays[-2].input.name if number else "the first input"
                raise Failure(f"{self.name}: {error}; {one.name} was played, and {before} before it") from error

    async def _play(self, play):
        self.relay.tag = (play.number, "input")
        try:
            play.answers = await self._send(play.input.pieces(), TAIL % play.number)
        except TimeoutError:
            play.problems.append("lbproxy did not end the client's connection")
        self.relay.tag = (play.number, "probe")
        try:
            play.probe_answer = await self._send([PROBE % play.number], None)
        except TimeoutError:
            play.problems.append("the probe was never answered")
        answered = play.probe_answer.startswith(b"HTTP/1.1 200 ")
        if not answered:
            play.problems.append(f"the probe was answered with {play.probe_answer[:200]!r}")
        if play.problems:
            self.relay.cut_all()

    async def _send(self, pieces, tail):
        """Sends, reads until the end of the connection; the tail is sent once nothing comes any more."""
        client = Client()
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: client, "127.0.0.1", self.port)
        try:
            client.transport.write(pieces[0])
            for piece in pieces[1:]:
                await asyncio.sleep(PAUSE)
                client.transport.write(piece)
            if tail is not None and await client.falls_silent(SILENCE):
                client.transport.write(tail)
            async with asyncio.timeout(PATIENCE):
                await client.ended
        finally:
            client.transport.abort()
        return bytes(client.received)


class Client(asyncio.Protocol):
    """A client connection."""

    def __init__(self):
        self.transport = None
        self.received = bytearray()
        self.ended = asyncio.get_running_loop().create_future()
        self._moved = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += data
        self._moved.set()

    def eof_received(self):
        self._end()

    def connection_lost(self, _error):
        self._end()

    def _end(self):
        if not self.ended.done():
            self.ended.set_result(None)
        self._moved.set()

    async def falls_silent(self, silence):
        """Waits until nothing came for so long; False if the connection ended."""
        while not self.ended.done():
            self._moved.clear()
            try:
                async with asyncio.timeout(silence):
                    await self._moved.wait()
            except TimeoutError:
                return True
        return False
