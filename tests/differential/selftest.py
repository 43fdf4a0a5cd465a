#!/usr/bin/env -S python3 -B
"""Whether the differential check notices what it is there for: made-up streams and made-up backends, no sockets."""

import unittest
from collections import Counter

import gadgets
import inputs
import judge
import mutate
import wire
from balancer import total
from lane import Lane, Play
from peers import Nginx, Seen, Uvicorn
from relay import Connection, Relay, answer

HEAD = b"POST /%s HTTP/1.1\r\nHost: a\r\nX-Request-Id: %s\r\n"
PROBE = b"GET /probe-0 HTTP/1.1\r\nHost: p\r\nX-Request-Id: probe\r\n\r\n"


def post(name, body=b"hello", length=None):
    """A request of this name, which is its id too."""
    length = len(body) if length is None else length
    return HEAD % (name, name) + b"Content-Length: %d\r\n\r\n" % length + body


class Reader(unittest.TestCase):
    """The strict reader."""

    def test_counts_requests_of_both_framings(self):
        chunked = HEAD % (b"b", b"b") + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n"
        found = wire.read_requests(post(b"a") + chunked + PROBE)
        self.assertEqual([(r.target, r.body) for r in found], [("/a", b"hello"), ("/b", b"hello"), ("/probe-0", b"")])
        self.assertEqual([r.blemishes for r in found], [[], [], []])

    def test_knows_where_a_stream_is_cut(self):
        chunked = HEAD % (b"b", b"b") + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        for whole in (post(b"a"), chunked):
            for end in range(1, len(whole)):
                self.assertEqual([r.complete for r in wire.read_requests(whole[:end])], [False], whole[:end])

    def test_refuses_what_has_two_readings(self):
        for spoilt in (
            HEAD % (b"a", b"a") + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            HEAD % (b"a", b"a") + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            HEAD % (b"a", b"a") + b"Content-Length: 05\r\n\r\nhello",
            HEAD % (b"a", b"a") + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
            HEAD % (b"a", b"a") + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            HEAD % (b"a", b"a") + b"Transfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\n\r\n",
            HEAD % (b"a", b"a") + b"X: y\nZ: a\r\n\r\n",
            HEAD % (b"a", b"a") + b"X: y\rZ: a\r\n\r\n",
            HEAD % (b"a", b"a") + b" folded\r\n\r\n",
            HEAD % (b"a", b"a") + b"Host: b\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        ):
            with self.assertRaises(wire.Fault, msg=spoilt):
                wire.read_requests(spoilt)

    def test_sees_blemishes(self):
        for spoilt in (
            HEAD % (b"a", b"a") + b"Content_Length: 5\r\n\r\n",
            HEAD % (b"a", b"a") + b"X:y\r\n\r\n",
            HEAD % (b"a", b"a") + b"Transfer-Encoding: chunked\r\n\r\n05\r\nhello\r\n0\r\n\r\n",
            HEAD % (b"a", b"a") + b"Transfer-Encoding: chunked\r\n\r\n0\r\nHost: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: y\r\nHost: a\r\n\r\n",
        ):
            self.assertTrue(wire.read_requests(spoilt)[0].blemishes, spoilt)


def connection(serial, *parts):
    """A recorded connection: bytes, and the input that they came with."""
    made = Connection(serial)
    for data, tag in parts:
        made.marks.append((len(made.data), tag))
        made.data += data
    return made


class Judge(unittest.TestCase):
    """One input on one connection and its probe on another, before backends that see it in different ways."""

    def setUp(self):
        self.forwarded = post(b"a") + post(b"b")
        self.ids = ["a", "b"]

    def problems(self, seen, forwarded=None, probe_answer=None, kind=Nginx):
        """What is found if a backend sees this of the input; the probe it always sees."""
        forwarded = self.forwarded if forwarded is None else forwarded
        self.lane = Lane("lane", "door", kind(None, None), False, Relay(0))
        first = connection(1, (forwarded, (0, "input")))
        second = connection(2, (PROBE, (0, "probe")))
        self.lane.relay.connections += [first, second]
        play = Play(0, inputs.Input("input", "group", b"raw"))
        play.answers = b"".join(b"HTTP/1.1 200 OK\r\nX-Saw: %s\r\n\r\n" % one.encode() for one in self.ids)
        probe = wire.read_request(PROBE)
        play.probe_answer = answer(probe) if probe_answer is None else probe_answer
        self.lane.plays.append(play)
        self.verdict = judge.judge_lane(self.lane, {first.peer: seen, second.peer: [Seen(*probe.facts())]})
        return play.problems + self.verdict.problems

    def seen(self, *names, body=b"hello"):
        """The requests of these names."""
        return [Seen("POST", f"/{name}", "a", len(body), wire.digest(body)) for name in names]

    def test_agreement_is_no_problem(self):
        self.assertEqual(self.problems(self.seen("a", "b")), [])
        self.assertEqual(self.verdict.counts["same"], 3)

    def test_a_refusal_is_counted_and_no_problem(self):
        self.ids = ["a"]
        self.assertEqual(self.problems(self.seen("a") + [Seen(refused="400")]), [])
        self.assertEqual(self.verdict.refusals, Counter({("group", "400"): 1}))

    def test_one_more(self):
        self.assertIn("1 requests more", "".join(self.problems(self.seen("a", "b", "smuggled"))))
        self.assertIn("1 requests more", "".join(self.problems(self.seen("a", "b") + [Seen(refused="400")])))

    def test_one_less(self):
        self.assertTrue(self.problems(self.seen("a")))
        self.assertTrue(self.problems([]))

    def test_another_method_target_host_or_body(self):
        for changes in ({"method": "GET"}, {"target": "/x"}, {"host": "b"}, {"length": 4}, {"sha256": "0"}):
            seen = self.seen("a", "b")
            for name, value in changes.items():
                setattr(seen[1], name, value)
            self.assertIn("read differently", "".join(self.problems(seen)), changes)

    def test_a_cut_request_may_be_refused_or_not_be_seen(self):
        self.ids = []
        for seen in ([], [Seen(refused="400")]):
            self.assertEqual(self.problems(seen, forwarded=post(b"a", length=99)), [])
            self.assertEqual(self.verdict.counts["cut"], 1)

    def test_a_cut_request_may_not_be_taken_for_whole(self):
        self.ids = []
        problems = self.problems(self.seen("a"), forwarded=post(b"a", length=99))
        self.assertIn("although it was cut", "".join(problems))

    def test_the_request_of_one_that_is_out_of_step(self):
        # The backend ends the body early and reads the rest of it as a request.
        seen = [Seen("POST", "/a", "a", 0, wire.digest(b"")), Seen("GET", "/smuggled", "b", 0, wire.digest(b""))]
        self.ids = ["a"]
        problems = self.problems(seen, forwarded=post(b"a", b"GET /smuggled HTTP/1.1\r\nHost: b\r\n\r\n"))
        self.assertIn("read differently", problems[0])
        self.assertIn("1 requests more", problems[1])

    def test_what_met_a_closed_backend_does_not_count(self):
        self.ids = ["a"]
        self.problems(self.seen("a"))
        self.lane.relay.connections[0].closed_at = len(post(b"a"))
        self.lane.plays[0].problems.clear()
        first, second = self.lane.relay.connections
        probe = Seen(*wire.read_request(PROBE).facts())
        verdict = judge.judge_lane(self.lane, {first.peer: self.seen("a"), second.peer: [probe]})
        self.assertEqual((self.lane.plays[0].problems, verdict.counts["late"]), ([], 1))

    def test_what_is_not_a_request(self):
        self.assertIn("not a request", "".join(self.problems([], forwarded=b"GET / HTTP/1.1\nHost: a\r\n\r\n")))

    def test_what_is_not_canonical(self):
        self.ids = ["a"]
        odd = b"POST /a HTTP/1.1\r\nHost: a\r\nX-Request-Id:a\r\nContent-Length: 5\r\n\r\nhello"
        self.assertIn("not canonical", "".join(self.problems(self.seen("a"), forwarded=odd)))

    def test_answers_in_another_order_or_of_another(self):
        self.ids = ["b", "a"]
        self.assertTrue(self.problems(self.seen("a", "b")))
        self.ids = ["a"]
        self.assertTrue(self.problems(self.seen("a", "b")))
        self.ids = ["a", "b"]
        other = b"HTTP/1.1 200 OK\r\nX-Saw: other\r\n\r\n"
        self.assertIn("another request", "".join(self.problems(self.seen("a", "b"), probe_answer=other)))

    def test_only_what_forgets_empty_queries_may(self):
        self.ids = ["a?"]
        forwarded = post(b"a?")
        self.assertEqual(self.problems(self.seen("a"), forwarded=forwarded, kind=Uvicorn), [])
        self.assertTrue(self.problems(self.seen("a"), forwarded=forwarded))

    def test_totals(self):
        self.problems(self.seen("a", "b"))
        line = {"listener": "lane", "attempts": 1, "method": "POST", "host": "a"}
        lines = [line | {"id": name, "uri": f"/{name}"} for name in ("a", "b")]
        lines.append(line | {"id": "probe", "method": "GET", "host": "p", "uri": "/probe-0"})
        metrics = [
            ("lbproxy_requests_total", {"listener": "lane"}, 3.0),
            ("lbproxy_backend_requests_total", {"cluster": "lane"}, 3.0),
            ("lbproxy_backend_connections_total", {"cluster": "lane"}, 2.0),
        ]
        judge.check_totals(self.lane, self.verdict, lines, metrics, total)
        self.assertEqual(self.verdict.problems, [])
        for place, changed in ((0, lines[1:]), (1, [*lines[:2], lines[2] | {"uri": "/x"}])):
            judge.check_totals(self.lane, self.verdict, changed, metrics, total)
            self.assertTrue(self.verdict.problems, place)
            self.verdict.problems.clear()
        for place in range(len(metrics)):
            wrong = [entry if n != place else (*entry[:2], 4.0) for n, entry in enumerate(metrics)]
            judge.check_totals(self.lane, self.verdict, lines, wrong, total)
            self.assertTrue(self.verdict.problems, place)
            self.verdict.problems.clear()


class Inputs(unittest.TestCase):
    """What is sent."""

    def test_escapes(self):
        self.assertEqual(inputs.resolve("a\\r\\n\n\\x00\\\\${b\\t*3}é"), b"a\r\n\0\\b\tb\tb\t\xc3\xa9")

    def test_inline_tables_over_several_lines(self):
        text = "a = [\n {\n  b = '{',  # a {\n  c = '''}\n'''\n },\n]\nd = \"\\\"{\"\n"
        self.assertEqual(inputs.tomllib.loads(inputs.on_one_line(text)), {"a": [{"b": "{", "c": "}\n"}], "d": '"{'})

    def test_the_same_seed_makes_the_same_inputs(self):
        self.assertEqual(mutate.mutations(7, 50), mutate.mutations(7, 50))
        self.assertNotEqual(mutate.mutations(7, 50), mutate.mutations(8, 50))

    def test_names_are_unique(self):
        names = [one.name for one in gadgets.gadgets() + mutate.mutations(1, 100)]
        self.assertEqual(len(names), len(set(names)))

    def test_pieces_are_the_whole(self):
        found = list(inputs.cut_some(mutate.random.Random(1), gadgets.gadgets()))
        self.assertTrue(any(one.cuts for one in found))
        self.assertTrue(all(b"".join(one.pieces()) == one.raw for one in found))


if __name__ == "__main__":
    unittest.main()
