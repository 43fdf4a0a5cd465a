#!/usr/bin/env bash
# cheroot 11.1.2 (PyPI) sends the body that a WSGI application returns with a 304 as it is, behind a head without
# Content-Length and Transfer-Encoding, and does not announce that it closes: to a client, which expects no body there
# (RFC 9110 15.4.5), the bytes stand where the next response begins. The same goes for HEAD.
# Prints what was seen, and fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check cheroot==11.1.2
"$folder/venv/bin/python" - <<'PY'
import socket
import threading

from cheroot import wsgi


def application(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"a"')])
    return [b"unchanged"]


server = wsgi.Server(("127.0.0.1", 0), application)
server.prepare()
threading.Thread(target=server.serve, daemon=True).start()


def ask(method):
    with socket.create_connection(server.bind_addr) as client:
        client.sendall(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    head, _, rest = answer.partition(b"\r\n\r\n")
    return head.decode().lower(), rest


try:
    for method in b"GET", b"HEAD":
        head, rest = ask(method)
        print(method.decode(), head.split("\r\n")[0], "behind the head:", rest)
        names = ("content-length", "transfer-encoding", "connection")
        framing = [line for line in head.split("\r\n") if line.startswith(names)]
        assert rest == b"unchanged" and not framing, (rest, framing)
finally:
    server.stop()
PY
