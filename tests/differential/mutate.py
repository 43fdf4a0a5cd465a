"""A seeded generator of requests that are nearly right.

Each begins as a well-formed draft from a small grammar; then one to three operations change a part that decides about
framing, syntax or routing, and now and then single bytes are spoilt. Most operations leave a request that lbproxy may
still forward, since what it refuses tells nothing of how backends read it.
"""

import random
from dataclasses import dataclass, field

from inputs import Input

OCTETS = [bytes([byte]) for byte in b"\0\x01\t\n\x0b\x0c\r\x1b \"#%'(),/:;<=>?@[\\]_{}\x7f\x80\x85\xa0\xad\xff"]
TOKEN_OCTETS = [bytes([byte]) for byte in b"!#$%&'*+-.^_`|~0aZ"]
VALUE_OCTETS = [bytes([byte]) for byte in b"\t \"(),/:;<=>?@[\\]{}aZ09%\x80\x85\xa0\xc3\xff"]
METHODS = (
    b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"HEAD", b"PROPFIND", b"SEARCH", b"QUERY", b"M-SEARCH"
)
HOSTS = (
    b"front.example", b"FRONT.EXAMPLE:8080", b"a_b.example.", b"127.0.0.1:80", b"[::1]:80", b"a~b", b"front.example:"
)
NAMES = (
    b"Accept", b"Cookie", b"X-Custom", b"User-Agent", b"Referer", b"Content-Type", b"X_Under", b"X.Dot", b"Range",
    b"Via"
)


@dataclass
class Draft:
    """The parts of a request, which are put together as they are."""

    method: bytes
    target: bytes
    version: bytes = b"HTTP/1.1"
    spaces: list = field(default_factory=lambda: [b" ", b" "])
    line_end: bytes = b"\r\n"
    # Lists of name, what stands before the value, value, line end.
    fields: list = field(default_factory=list)
    head_end: bytes = b"\r\n"
    body: bytes = b""
    # Lists of size, extension, end of the size line, data, end of the data; None if the body is not chunked.
    chunks: list = None
    last: list = field(default_factory=lambda: [b"0", b"\r\n", b"", b"\r\n"])
    lead: bytes = b""
    tail: bytes = b""

    def add(self, name, value):
        """A field line as it should be."""
        self.fields.append([name, b": ", value, b"\r\n"])

    def named(self, name):
        """The field lines of this name."""
        return [line for line in self.fields if line[0].lower() == name]

    def render(self):
        """All of it as bytes."""
        head = [self.lead, self.method, self.spaces[0], self.target, self.spaces[1], self.version, self.line_end]
        for line in self.fields:
            head += line
        head.append(self.head_end)
        body = [self.body]
        if self.chunks is not None:
            body = [part for chunk in self.chunks for part in chunk] + self.last
        return b"".join(head + body + [self.tail])


def draft(rng, number):
    """A well-formed request."""
    one = Draft(rng.choice(METHODS), b"/m%d/%s" % (number, rng.choice((b"", b"a", b"a/b?c=d", b"%41%2f?x", b"a//b"))))
    one.add(b"Host", rng.choice(HOSTS))
    for _ in range(rng.randrange(4)):
        one.add(rng.choice(NAMES), text(rng, VALUE_OCTETS, 0, 12).strip(b" \t"))
    kind = rng.choice(("none", "length", "length", "chunked", "chunked", "chunked"))
    if kind == "length":
        one.body = body(rng)
        one.add(b"Content-Length", b"%d" % len(one.body))
    elif kind == "chunked":
        one.add(b"Transfer-Encoding", b"chunked")
        one.chunks = [chunk(body(rng)) for _ in range(rng.randrange(4))]
        one.chunks = [each for each in one.chunks if each[3]]
    rng.shuffle(one.fields)
    one.tail = tail(rng, number)
    return one


def text(rng, octets, shortest, longest):
    """Some of these octets."""
    return b"".join(rng.choice(octets) for _ in range(rng.randint(shortest, longest)))


def body(rng):
    """Data that looks like the end of a message, the begin of one, or like nothing."""
    return rng.choice(
        (
            b"", b"hello", b"0\r\n\r\n", b"\r\n", b"GET /smuggled HTTP/1.1\r\nHost: inner.example\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\n", b"x" * rng.randint(1, 3000),
            bytes(rng.randrange(256) for _ in range(rng.randint(1, 60))),
        )
    )


def chunk(data):
    """A chunk as it should be."""
    return [b"%x" % len(data), b"", b"\r\n", data, b"\r\n"]


def tail(rng, number):
    """What follows on the same connection."""
    following = b"GET /t%d HTTP/1.1\r\nHost: tail.example\r\n\r\n" % number
    return rng.choice(
        (b"", b"", b"", following, following, following * 2, following[:-2], b"0\r\n\r\n", b"X", b"\r\n" + following)
    )


# Operations: each changes a draft. What it is about is its name.


def op_framing(rng, one):
    """Another, a second, or a misspelt framing field."""
    names = (
        b"Content-Length", b"Transfer-Encoding", b"content-length", b"Content_Length", b"Transfer-encoding",
        b"Transfer.Encoding", b"X-Content-Length", b"Content-Length-X", b"TE", b"Trailer", b"Content-Encoding"
    )
    values = (
        b"0", b"5", b"%d" % len(one.body), b"chunked", b"identity", b"gzip, chunked", b"", b"1e1", b"trailers", b"0, 5"
    )
    line = [rng.choice(names), b": ", rng.choice(values), b"\r\n"]
    one.fields.insert(rng.randint(0, len(one.fields)), line)


def op_length_value(rng, one):
    """Another spelling of the number."""
    for line in one.named(b"content-length"):
        number = line[2]
        line[2] = rng.choice(
            (
                b"0" + number, b"+" + number, number + b".0", number + b"," + number, b"0x" + number,
                b"\t" + number + b" ", number + b"\0", b"", b"%d" % (len(one.body) + rng.choice((-1, 1, 10))),
                number * 9
            )
        )


def op_coding_value(rng, one):
    """Another spelling of chunked."""
    for line in one.named(b"transfer-encoding"):
        line[2] = rng.choice(
            (
                b"Chunked", b" chunked\t", b"chunked,", b"chunked;x", b'"chunked"', b"x, chunked", b"chunked\x0b",
                b"identity", b"gzip, chunked", b"chunked, chunked", b"", b"chunkedd"
            )
        )


def op_chunk_size(rng, one):
    """Zeros, capitals, signs and prefixes."""
    for each in pick_chunk(rng, one):
        size = each[0]
        each[0] = rng.choice(
            (
                b"0" + size, b"0" * (16 - len(size)) + size, size.upper(), b"+" + size, b"0x" + size, b" " + size,
                size + b" ", size + b"g", b"1" + b"0" * 16, b"", b"%x" % (len(each[3]) + rng.choice((-1, 1)))
            )
        )


def op_chunk_extension(rng, one):
    """Extensions, good and bad."""
    for each in pick_chunk(rng, one):
        each[1] = rng.choice(
            (
                b";x", b";x=y", b';x="y;z"', b"; x = y", b";", b";;", b";" + text(rng, VALUE_OCTETS, 1, 40),
                b";" + rng.choice(OCTETS), b"x", b' ;x="\\""'
            )
        )


def op_chunk_line_end(rng, one):
    """What stands behind a size or behind data."""
    for each in pick_chunk(rng, one):
        each[rng.choice((2, 4))] = rng.choice((b"\n", b"\r", b"\r\r\n", b"", b"\r\n\r\n", b"\n\r", b"X\r\n"))


def op_chunks_cut(rng, one):
    """The body is chunked another way, or ends early."""
    if one.chunks:
        whole = b"".join(each[3] for each in one.chunks)
        step = rng.choice((1, 2, 7, 1000))
        if len(whole) < 400 or step > 2:
            one.chunks = [chunk(whole[at:at + step]) for at in range(0, len(whole), step)]
        if rng.random() < 0.2:
            one.last = [b""]


def op_last_chunk(rng, one):
    """Zeros, extensions and line ends of the last chunk."""
    if one.chunks is not None:
        one.last[0] = rng.choice(
            (b"00", b"0000000000000000", b"0;x", b"0;x=y", b"0 ", b"-0", b"0x0", b"", b"00000000000000000")
        )
        one.last[-1] = rng.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b""))


def op_trailers(rng, one):
    """Trailer fields."""
    if one.chunks is not None and len(one.last) == 4:
        lines = (
            b"X-Sum: 1\r\n", b"Content-Length: 5\r\n", b"Host: inner.example\r\n", b"Cookie: a\r\n", b"X_T: 1\r\n",
            b"X: \xff\t\r\n", b"X:\r\n", b"X-Forwarded-For: 1.2.3.4\r\n", b"no colon\r\n", b" x: y\r\n", b"X: a\n",
            b"Transfer-Encoding: x\r\n", b"X.Y: z\r\n"
        )
        one.last[2] = b"".join(rng.choice(lines) for _ in range(rng.randint(1, 3)))


def op_line_end(rng, one):
    """Another end of one line of the head."""
    end = rng.choice((b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b"\0\r\n", b"\x0b\r\n"))
    place = rng.randrange(len(one.fields) + 2)
    if place == 0:
        one.line_end = end
    elif place == 1:
        one.head_end = end
    else:
        one.fields[place - 2][3] = end


def op_white_space(rng, one):
    """Around a colon and at the ends of a value."""
    line = rng.choice(one.fields)
    line[1] = rng.choice((b":", b":  ", b":\t", b":\t \t", b" : ", b"\t:", b":\x0b", b":\xa0", b": "))
    line[2] += rng.choice((b"", b" ", b"\t", b" \t ", b"\x0c"))


def op_value(rng, one):
    """A value of unusual octets, which is legal."""
    one.add(text(rng, TOKEN_OCTETS, 1, 8), text(rng, VALUE_OCTETS, 0, 60))


def op_name(rng, one):
    """A name that is near to one that matters."""
    known = rng.choice(
        (
            b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"Expect", b"Upgrade", b"X-Forwarded-For",
            b"Trailer"
        )
    )
    at = rng.randrange(len(known) + 1)
    name = rng.choice(
        (
            known[:at] + rng.choice(TOKEN_OCTETS) + known[at:], known[:at] + known[at + 1:], known.replace(b"-", b"_"),
            known + b"-"
        )
    )
    one.add(name, rng.choice((b"5", b"chunked", b"close", b"inner.example", b"100-continue", b"websocket")))


def op_target(rng, one):
    """Forms and octets of the target."""
    mark = one.target
    one.target = rng.choice(
        (
            b"/" + mark, b"//" + mark, mark + b"/..", mark + b"/%2e%2e/x", mark + b"\\..\\x", mark + b"?",
            mark + b"??a", mark + b"%00", mark + b"?%00", mark + b"%0d%0a", mark + b"#f", mark + b"|^{}`<>\"",
            mark + b";a=b", mark + b"\xc3\xa9", mark + b"%", b"http://inner.example" + mark,
            b"HTTP://inner.example:80" + mark, b"https://[::1]" + mark, b"http://u@inner.example" + mark,
            b"http://inner.example", b"*", b"/..;" + mark, b"." + mark, mark + b"/" + text(rng, VALUE_OCTETS, 1, 6),
            mark + b"x" * 5000, b"/*" + mark, mark + b"/http://inner.example/",
        )
    )


def op_host(rng, one):
    """Forms of Host; a second one; none."""
    for line in one.named(b"host"):
        line[2] = rng.choice(
            (
                b"front.example.", b"FRONT.example", b"a_b", b"front.example:0", b"front.example:65536",
                b"u@front.example", b"", b"a,b", b"a b", b"[::1]", b"[::1", b"front.example/x", b"1.2.3.4:5", b"a~b:1",
                b"front.example\x80"
            )
        )
        if rng.random() < 0.2:
            one.fields.remove(line)
        elif rng.random() < 0.1:
            one.add(b"Host", b"inner.example")


def op_method(rng, one):
    """Methods that some parser does not know."""
    one.method = rng.choice(
        (
            b"get", b"Post", b"FOO", b"GET-X", b"PURGE", b"LINK", b"CONNECT", b"TRACE", b"M" * 32, b"G'T", b"X|Y",
            b"PRI", b"GET/", b"!", b"1", b"SOURCE"
        )
    )


def op_request_line(rng, one):
    """Spaces and version."""
    if rng.random() < 0.5:
        one.version = rng.choice(
            (
                b"HTTP/1.0", b"HTTP/1.0", b"HTTP/1.0", b"HTTP/1.2", b"http/1.1", b"HTTP/2.0", b"HTTP/1.1 ", b"",
                b"HTTP/1.10"
            )
        )
    else:
        one.spaces[rng.randrange(2)] = rng.choice((b"  ", b"\t", b"\x0b", b" \t", b"\xa0", b""))


def op_connection(rng, one):
    """Options, among them names of fields."""
    named = rng.choice(one.fields)[0]
    one.add(
        b"Connection",
        rng.choice(
            (
                b"close", b"keep-alive", b"close, keep-alive", named, b"x, " + named, b"te, trailer", b",,", b"Upgrade",
                b"a b"
            )
        )
    )


def op_expect(rng, one):
    """Expectations."""
    one.add(b"Expect", rng.choice((b"100-continue", b"100-Continue", b"100-continue", b"100-continue, x", b"x", b"")))


def op_upgrade(rng, one):
    """An offer of another protocol."""
    one.add(b"Connection", rng.choice((b"upgrade", b"Upgrade, HTTP2-Settings")))
    one.add(b"Upgrade", rng.choice((b"websocket", b"h2c", b"foo/2", b"websocket, h2c", b"")))


def op_forwarded(rng, one):
    """What claims to know the client, spelt in several ways."""
    names = (
        b"X-Forwarded-For", b"X_Forwarded_For", b"X-Forwarded-Proto", b"X-Forwarded-Host", b"X-Request-Id",
        b"Forwarded", b"X-Real-IP", b"X.Real.IP"
    )
    one.add(
        rng.choice(names),
        rng.choice((b"1.2.3.4", b"https", b"a, b", b"", b"x" * 200, b"\xff", b"unknown", b"[::1]:80"))
    )


def op_lead(rng, one):
    """What stands before the request."""
    one.lead = rng.choice((b"\r\n", b"\r\n\r\n", b"\r\n" * 5, b"\n", b" ", b"\0", b"\r"))


def op_many_fields(rng, one):
    """Near the limit of fields."""
    for number in range(rng.choice((80, 92, 99, 101))):
        one.add(b"A%d" % number, b"v")


def pick_chunk(rng, one):
    """One chunk, if there is any."""
    return [rng.choice(one.chunks)] if one.chunks else []


OPERATIONS = {name.removeprefix("op_"): value for name, value in list(globals().items()) if name.startswith("op_")}


def spoil(rng, raw):
    """Inserts, replaces, removes or repeats a few bytes anywhere."""
    raw = bytearray(raw)
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(raw))
        what = rng.randrange(4)
        if what == 0:
            raw[at:at] = rng.choice(OCTETS)
        elif what == 1:
            raw[at:at + 1] = rng.choice(OCTETS)
        elif what == 2:
            del raw[at:at + rng.randint(1, 3)]
        else:
            raw[at:at] = raw[at:at + rng.randint(1, 30)]
    return bytes(raw)


def mutations(seed, count):
    """`count` inputs, the same for the same seed."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        one = draft(rng, number)
        names = rng.sample(list(OPERATIONS), rng.randint(1, 3))
        for name in names:
            OPERATIONS[name](rng, one)
        raw = one.render()
        if rng.random() < 0.12:
            raw = spoil(rng, raw)
            names.append("spoil")
        name = f"mutation/{number}/{'+'.join(names)}"
        found.append(Input(name, "mutations", raw, trusted=rng.random() < 0.25))
    return found
