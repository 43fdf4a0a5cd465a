#!/usr/bin/env bash
# httptools 0.9.0 (PyPI, llhttp) reports no body behind a request head that offers an Upgrade, whatever its
# Content-Length says: the bytes are left to whoever takes the connection over, and the call that fed them raises
# HttpParserUpgrade with the offset behind the head. RFC 9110 7.8 lets a server ignore the offer, and then the body is
# the request's. A server that ignores it must read the body itself; without the offer the same body is reported.
# Prints what was seen, and fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check httptools==0.9.0
"$folder/venv/bin/python" - <<'PY'
import httptools


class Request:
    def __init__(self):
        self.body = b""
        self.complete = False

    def on_body(self, piece):
        self.body += piece

    def on_message_complete(self):
        self.complete = True


def read(upgrade):
    request = Request()
    head = b"POST / HTTP/1.1\r\nHost: a\r\n" + upgrade + b"Content-Length: 5\r\n\r\n"
    left = b""
    try:
        httptools.HttpRequestParser(request).feed_data(head + b"hello")
    except httptools.HttpParserUpgrade as upgraded:
        left = (head + b"hello")[upgraded.args[0] :]
    return request.body, request.complete, left


plain, offered = read(b""), read(b"Connection: Upgrade\r\nUpgrade: tcp\r\n")
print("without an offer: body, complete, left over:", plain)
print("with an offer:    body, complete, left over:", offered)
assert plain == (b"hello", True, b""), plain
assert offered == (b"", True, b"hello"), offered
PY
