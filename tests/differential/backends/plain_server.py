"""Python's http.server as a backend: plain_server.py NOTES.

http.server reads heads and leaves bodies to its handler, so the body is read the way a simple application would.
"""

import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from notes import Notes


class Handler(BaseHTTPRequestHandler):
    """Notes every request, whatever its method."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.take
        raise AttributeError(name)

    def take(self):
        """Reads the body, writes the note, answers."""
        try:
            body = self.read_body()
        except (ValueError, EOFError) as error:
            self.send_error(400, f"body: {error}")
            return
        # `self.path` has lost all but one of its leading slashes.
        target = self.requestline.split(" ")[1]
        notes.served(self.client_address[0], self.command, target, self.headers["Host"], body)
        self.send_response(200)
        self.send_header("X-Saw", self.headers.get("X-Request-Id", "-"))
        self.send_header("Content-Length", "5")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"seen\n")

    def read_body(self):
        """By Transfer-Encoding if there is one, else by Content-Length."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return b"".join(iter(self.read_chunk, b""))
        return self.read_exactly(int(self.headers.get("Content-Length", 0)))

    def read_chunk(self):
        """One chunk; the last is empty, and its trailers are skipped."""
        size = int(self.rfile.readline().split(b";")[0], 16)
        if size == 0:
            while self.rfile.readline() not in (b"\r\n", b"\n", b""):
                pass
            return b""
        data = self.read_exactly(size)
        self.rfile.readline()
        return data

    def read_exactly(self, size):
        """So many bytes, or EOFError."""
        data = self.rfile.read(size)
        if len(data) < size:
            raise EOFError("cut")
        return data

    def send_error(self, code, message=None, explain=None):
        notes.refused(self.client_address[0], f"{code} {message or ''}".strip())
        super().send_error(code, message, explain)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    """Quiet about connections that end early."""

    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request, client_address):
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, socket.timeout)):
            super().handle_error(request, client_address)


if __name__ == "__main__":
    notes = Notes(sys.argv[1])
    server = Server(("127.0.0.1", 0), Handler)
    print("ready", "python", server.server_port, flush=True)
    server.serve_forever()
