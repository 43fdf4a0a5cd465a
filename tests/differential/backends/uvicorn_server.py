"""uvicorn as a backend: uvicorn_server.py NOTES NAME, NAME being uvicorn (h11) or uvicorn-httptools (llhttp)."""

import socket
import sys

import uvicorn
from notes import Notes


async def app(scope, receive, send):
    """Reads the body, writes the note, answers."""
    if scope["type"] != "http":
        return
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    fields = dict(scope["headers"])
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    notes.served(scope["client"][0], scope["method"], target, fields.get(b"host"), bytes(body))
    start = [(b"content-length", b"5"), (b"x-saw", fields.get(b"x-request-id", b"-"))]
    await send({"type": "http.response.start", "status": 200, "headers": start})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else b"seen\n"})


def noting(protocol):
    """The protocol with a note of what it refuses."""

    class Noting(protocol):
        def send_400_response(self, msg):
            notes.refused(self.client[0], f"400 {msg}")
            super().send_400_response(msg)

    return Noting


def protocol_of(name):
    """The class that reads requests."""
    if name == "uvicorn-httptools":
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        return noting(HttpToolsProtocol)
    from uvicorn.protocols.http.h11_impl import H11Protocol

    return noting(H11Protocol)


if __name__ == "__main__":
    notes = Notes(sys.argv[1])
    # asyncio turns Nagle's algorithm off only for sockets that name their protocol.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    config = uvicorn.Config(
        app,
        http=protocol_of(sys.argv[2]),
        ws="none",
        lifespan="off",
        proxy_headers=False,
        log_config=None,
        access_log=False,
        timeout_keep_alive=75,
        h11_max_incomplete_event_size=256 << 10,
    )
    print("ready", sys.argv[2], listener.getsockname()[1], flush=True)
    uvicorn.Server(config).run(sockets=[listener])
