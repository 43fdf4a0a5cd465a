"""A strict reader of HTTP/1.1 requests (RFC 9112), which counts what stands in a stream of bytes.

It repairs nothing: what has more than one reading is a Fault, behind which nothing can be counted. What has one
reading but is not the very form that lbproxy promises to write is a blemish of its request: so a byte that should have
been rewritten or refused is noticed even when every backend happens to read it alike.
"""

import hashlib
import re
from dataclasses import dataclass, field

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x22\x24-\x7e]+) HTTP/1\.1")
FIELD = re.compile(rb"(" + TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*)")
LENGTH = re.compile("0|[1-9][0-9]{0,18}")
CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
# Fields that some recipient may take for framing or routing although they are spelt another way.
LOOKALIKE = re.compile("content.length|transfer.encoding")


class Fault(Exception):
    """Bytes that are not exactly one reading of a request."""


@dataclass
class Request:
    """A request, or the beginning of one (`complete` is False)."""

    method: str = ""
    target: str = ""
    host: str = ""
    fields: list = field(default_factory=list)
    body: bytes = b""
    complete: bool = False
    start: int = 0
    end: int = 0
    blemishes: list = field(default_factory=list)

    def get(self, name):
        """Value of the first field of this name, or None."""
        return next((value for known, value in self.fields if known == name), None)

    def facts(self):
        """What every parser must agree on."""
        return (self.method, self.target, self.host, len(self.body), digest(self.body))


def digest(body):
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(body).hexdigest()


def read_requests(data):
    """All requests in `data`; the last may be incomplete. Raises Fault, with the requests before it as `.requests`."""
    requests, at = [], 0
    try:
        while at < len(data):
            request = read_request(data, at)
            requests.append(request)
            at = request.end
    except Fault as fault:
        fault.requests = requests
        fault.at = at
        raise
    return requests


def read_request(data, at=0):
    """The request that begins at `at`; not complete if `data` ends inside it."""
    request = Request(start=at, end=len(data))
    line, at = _line(data, at)
    if line is None:
        return request
    matched = REQUEST_LINE.fullmatch(line)
    if not matched:
        raise Fault(f"request line {line!r}")
    request.method, request.target = (part.decode() for part in matched.groups())
    at = _read_fields(data, at, request)
    if at is None:
        return request
    read_body = _framing(request)
    body_end = read_body(data, at, request)
    if body_end is not None:
        request.complete, request.end = True, body_end
    return request


def head_is_complete(data, at=0):
    """Whether the head that begins at `at` is there."""
    return data.find(b"\r\n\r\n", at) >= 0


def _line(data, at):
    """The line at `at` without its CRLF, and where the next begins; (None, at) if it has not come yet."""
    end = data.find(b"\n", at)
    if end < 0:
        return None, at
    if end == at or data[end - 1] != 0x0D:
        raise Fault(f"bare LF behind {bytes(data[at:end])!r}")
    line = bytes(data[at : end - 1])
    if b"\r" in line:
        raise Fault(f"bare CR in {line!r}")
    return line, end + 1


def _read_fields(data, at, request):
    while True:
        line, at = _line(data, at)
        if line is None:
            return None
        if not line:
            return at
        request.fields.append(_field(line, request))


def _field(line, request):
    matched = FIELD.fullmatch(line)
    if not matched:
        raise Fault(f"field line {line!r}")
    name, raw = matched.groups()
    value = raw.strip(b" \t")
    if raw != b" " + value:
        request.blemishes.append(f"white space in field line {line!r}")
    return name.decode().lower(), value.decode("latin-1")


def _framing(request):
    """Which way the body is delimited; checks everything that could be read in two ways."""
    names = [name for name, _ in request.fields]
    _note_odd_names(names, request)
    for name in ("host", "content-length", "transfer-encoding"):
        if names.count(name) > 1:
            raise Fault(f"repeated {name}")
    request.host = request.get("host")
    if request.host is None:
        raise Fault("no Host")
    length, coding = request.get("content-length"), request.get("transfer-encoding")
    if coding is None:
        if length is not None and not LENGTH.fullmatch(length):
            raise Fault(f"Content-Length {length!r}")
        return _read_length
    if length is not None:
        raise Fault("Content-Length and Transfer-Encoding")
    if coding != "chunked":
        raise Fault(f"Transfer-Encoding {coding!r}")
    return _read_chunks


def _note_odd_names(names, request):
    if names[:1] != ["host"]:
        request.blemishes.append(f"Host is not the first field: {names[:1]}")
    for name in names:
        if LOOKALIKE.fullmatch(name) and name not in ("content-length", "transfer-encoding"):
            request.blemishes.append(f"field name that looks like framing: {name}")


def _read_length(data, at, request):
    end = at + int(request.get("content-length") or 0)
    request.body = bytes(data[at:end])
    return end if end <= len(data) else None


def _read_chunks(data, at, request):
    body = bytearray()
    try:
        while True:
            line, at = _line(data, at)
            if line is None:
                return None
            size = _chunk_size(line, request)
            if size == 0:
                return _read_trailers(data, at, request)
            body += data[at : at + size]
            ending = data[at + size : at + size + 2]
            if not b"\r\n".startswith(ending):
                raise Fault(f"chunk data is followed by {bytes(ending)!r}")
            if len(ending) < 2:
                return None
            at += size + 2
    finally:
        request.body = bytes(body)


def _chunk_size(line, request):
    if not CHUNK_SIZE.fullmatch(line):
        raise Fault(f"chunk size {line!r}")
    size = int(line, 16)
    if line != b"%x" % size:
        request.blemishes.append(f"chunk size {line!r}")
    return size


def _read_trailers(data, at, request):
    while True:
        line, at = _line(data, at)
        if line is None:
            return None
        if not line:
            return at
        name, _ = _field(line, request)
        if name == "host" or LOOKALIKE.fullmatch(name):
            request.blemishes.append(f"trailer {name}")
