"""Compares what lbproxy forwarded with what the backend saw, connection by connection, and blames the input.

The strict reader's list of requests on a connection is the measure. A backend's list may differ from it in two ways
only: it may refuse a request, and it may not know one of which lbproxy sent only the beginning.
"""

import json
from collections import Counter
from dataclasses import dataclass, field

import wire


@dataclass
class Sent:
    """A request that lbproxy forwarded."""

    request: wire.Request
    tag: tuple
    fate: str = ""


@dataclass
class LaneVerdict:
    """What a lane's connections showed."""

    lane: object
    sent: list = field(default_factory=list)
    refusals: Counter = field(default_factory=Counter)
    refused_inputs: dict = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)
    # Problems that belong to no single input.
    problems: list = field(default_factory=list)


def judge_lane(lane, seen):
    """Compares all connections of a lane; problems go to the plays that they belong to."""
    verdict = LaneVerdict(lane)
    for connection in lane.relay.connections:
        sent, is_whole = read_sent(lane, connection, verdict)
        compare(lane, connection, sent, seen.get(connection.peer, []), verdict, is_whole)
        verdict.sent += sent
    check_answers(lane, verdict.sent)
    return verdict


def read_sent(lane, connection, verdict):
    """The requests on a connection, by the strict reader; and whether it could read to the end."""
    is_whole = True
    try:
        requests = wire.read_requests(connection.data)
    except wire.Fault as fault:
        is_whole = False
        requests = fault.requests
        rest = show(bytes(connection.data[fault.at :]))
        blame(lane, verdict, connection.tag_at(fault.at), f"lbproxy sent what is not a request: {fault}\n  {rest}")
    if connection.closed_at is not None:
        late = [request for request in requests if request.start >= connection.closed_at]
        verdict.counts["late"] += len(late)
        requests = requests[: len(requests) - len(late)]
    sent = [Sent(request, connection.tag_at(request.start)) for request in requests]
    for one in sent:
        for blemish in one.request.blemishes:
            blame(lane, verdict, one.tag, f"lbproxy sent what is not canonical: {blemish}\n{account(connection, one)}")
    return sent, is_whole


def compare(lane, connection, sent, seen, verdict, is_whole):
    """One connection, request by request. Once the two are out of step all the rest differs: the first tells."""
    blamed = False
    for one, entry in zip(sent, seen):
        one.fate = fate(lane, one.request, entry)
        if one.fate == "refused":
            note_refusal(lane, one, entry, verdict)
        elif one.fate in ("invented", "different") and not blamed:
            blamed = True
            what = "read differently" if one.fate == "different" else "taken for whole, although it was cut,"
            difference = f"  the backend saw {describe(entry.facts())}"
            blame(lane, verdict, one.tag, f"{what} by the backend\n{account(connection, one)}\n{difference}")
    compare_ends(lane, connection, sent, seen, verdict, is_whole)
    verdict.counts.update(one.fate for one in sent)


def fate(lane, request, entry):
    """What became of a request at the backend."""
    if entry.refused:
        return "refused" if request.complete else "cut"
    if not request.complete and lane.peer.reads_body(request):
        return "invented"
    return "same" if lane.peer.agrees(request, entry) else "different"


def compare_ends(lane, connection, sent, seen, verdict, is_whole):
    """What one side has and the other has not."""
    for one in sent[len(seen) :]:
        one.fate = "unseen" if one.request.complete else "cut"
        if one.request.complete:
            blame(lane, verdict, one.tag, f"not seen by the backend\n{account(connection, one)}")
    more = seen[len(sent) :]
    if more and is_whole:
        last = sent[-1] if sent else None
        listed = "\n  ".join(f"refused: {e.refused}" if e.refused else describe(e.facts()) for e in more[:5])
        behind = f"behind\n{account(connection, last)}" if last else "on an empty connection"
        blame(lane, verdict, last and last.tag, f"the backend saw {len(more)} requests more\n  {listed}\n  {behind}")


def note_refusal(lane, one, entry, verdict):
    """Counts what a backend does not take, by the kind of input."""
    if one.tag is None:
        return
    number, part = one.tag
    source = lane.plays[number].input
    group = source.group if part == "input" else part
    key = (group, entry.refused)
    verdict.refusals[key] += 1
    verdict.refused_inputs.setdefault(key, source.name)


def check_answers(lane, sent):
    """Each client must have got the answers to its own requests, in their order, and each probe its own."""
    by_tag = {}
    for one in sent:
        if one.fate != "refused" and (one.request.complete or one.fate == "same"):
            by_tag.setdefault(one.tag, []).append(one.request)
    for play in lane.plays:
        forwarded = by_tag.get((play.number, "input"), [])
        expected = [id_of(request) for request in forwarded]
        # A backend that answers OPTIONS * itself, as Apache does, does not say which request it saw.
        without_stars = [id_of(request) for request in forwarded if request.target != "*"]
        answered = play.saw()
        if answered not in (expected, without_stars):
            play.problems.append(f"the client got the answers {answered}, but {expected} were forwarded for it")
        probes = by_tag.get((play.number, "probe"), [])
        if [request.target for request in probes] != [f"/probe-{play.number}"]:
            play.problems.append(f"the probe went out as {[describe(request.facts()) for request in probes]}")
        elif id_of(probes[0]).encode() not in play.probe_answer:
            play.problems.append(f"the probe got an answer to another request: {play.probe_answer[:300]!r}")


def check_totals(lane, verdict, lines, metrics, total):
    """The access log and the metrics must tell of the same requests as the wire."""
    mine = [line for line in lines if line["listener"] == lane.name]
    tried = [line for line in mine if line.get("attempts", 0) > 0]
    logged = Counter(line.get("id", "") for line in tried)
    forwarded = Counter(id_of(one.request) for one in verdict.sent)
    if logged != forwarded:
        verdict.problems.append(
            f"access log and wire disagree: only logged {list(logged - forwarded)[:5]}, "
            f"only forwarded {list(forwarded - logged)[:5]}"
        )
    check_lines(verdict, tried)
    pairs = [
        ("lbproxy_requests_total", total(metrics, "lbproxy_requests_total", listener=lane.name), len(mine)),
        (
            "lbproxy_backend_connections_total",
            total(metrics, "lbproxy_backend_connections_total", cluster=lane.name),
            len(lane.relay.connections),
        ),
        (
            "lbproxy_rejected_total",
            total(metrics, "lbproxy_rejected_total", listener=lane.name),
            sum("reason" in line for line in mine),
        ),
    ]
    for name, counted, wanted in pairs:
        if counted != wanted:
            verdict.problems.append(f"{name} is {counted:.0f}, but there were {wanted}")
    # A request that was refused in its body may have been answered before or not; the log does not tell.
    answered = total(metrics, "lbproxy_backend_requests_total", cluster=lane.name)
    if not sum("reason" not in line for line in tried) <= answered <= len(tried):
        verdict.problems.append(f"lbproxy_backend_requests_total is {answered:.0f} of {len(tried)} requests")
    return len(pairs) + 3


def check_lines(verdict, lines):
    """What a log line says of a request is what was forwarded."""
    by_id = {}
    for one in verdict.sent:
        by_id.setdefault(id_of(one.request), set()).add((one.request.method, one.request.target, one.request.host))
    for line in lines:
        known = by_id.get(line.get("id", ""), set())
        said = (line.get("method", ""), line.get("uri", ""), line.get("host", ""))
        # HTTP/1.0 may come without a Host; the backend's address is then put in.
        if known and not any(is_told(said, one) for one in known):
            verdict.problems.append(f"the access log says {said}, but {sorted(known)} was forwarded")
            return


def is_told(said, forwarded):
    """Whether the log says what was forwarded; what is overlong it cuts and ends in an ellipsis."""
    is_equal = [a == b or a.endswith("…") for a, b in zip(said, forwarded)]
    return all(is_equal[:2]) and (is_equal[2] or not said[2])


def id_of(request):
    """X-Request-Id, which lbproxy gives to every request."""
    return request.get("x-request-id") or ""


def blame(lane, verdict, tag, text):
    """Puts a problem where it belongs."""
    if tag is None:
        verdict.problems.append(text)
    else:
        number, part = tag
        lane.plays[number].problems.append(f"{text}\n  (while the {part} was played)")


def account(connection, one):
    """What was forwarded, as bytes and as the strict reader reads it."""
    raw = bytes(connection.data[one.request.start : one.request.end])
    return f"  forwarded {show(raw)}\n  which is {describe(one.request.facts())}"


def describe(facts):
    """Facts of a request in one line."""
    method, target, host, length, sha256 = facts
    return json.dumps({"method": method, "target": target, "host": host, "length": length, "sha256": sha256[:16]})


def show(raw, limit=1500):
    """Bytes for a reader; the middle of long ones is left out."""
    if len(raw) <= limit:
        return repr(raw)
    return f"{raw[: limit // 2]!r} … {len(raw) - limit} bytes … {raw[-limit // 2 :]!r}"
