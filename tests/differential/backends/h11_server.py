"""h11 as a backend: h11_server.py NOTES. One thread a connection."""

import socket
import sys
import threading

import h11
from notes import Notes

LIMIT = 256 << 10


def serve(connection, peer):
    """All requests of a connection."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    with connection:
        try:
            while serve_one(connection, parser, peer):
                parser.start_next_cycle()
        except h11.RemoteProtocolError as error:
            notes.refused(peer, f"{error.error_status_hint} {error}")
            refuse(connection, parser, error.error_status_hint)
        except OSError:
            pass


def serve_one(connection, parser, peer):
    """One request; False if the connection ends with it."""
    request, body = None, bytearray()
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            if parser.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                connection.sendall(parser.send(go_on))
            parser.receive_data(connection.recv(65536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            break
        else:
            return False
    fields = dict(request.headers)
    notes.served(peer, request.method, request.target, fields.get(b"host"), bytes(body))
    answer(connection, parser, request.method, fields.get(b"x-request-id", b"-"))
    return parser.our_state is h11.DONE and parser.their_state is h11.DONE


def answer(connection, parser, method, saw):
    """The response that every backend gives."""
    fields = [(b"Content-Type", b"text/plain"), (b"X-Saw", saw), (b"Content-Length", b"5")]
    out = parser.send(h11.Response(status_code=200, headers=fields, reason=b"OK"))
    if method != b"HEAD":
        out += parser.send(h11.Data(data=b"seen\n"))
    connection.sendall(out + parser.send(h11.EndOfMessage()))


def refuse(connection, parser, status):
    """What a server does that h11 has told of an error."""
    if parser.our_state in (h11.IDLE, h11.SEND_RESPONSE):
        fields = [(b"Connection", b"close"), (b"Content-Length", b"0")]
        out = parser.send(h11.Response(status_code=status, headers=fields, reason=b"Refused"))
        try:
            connection.sendall(out + parser.send(h11.EndOfMessage()))
        except OSError:
            pass


if __name__ == "__main__":
    notes = Notes(sys.argv[1])
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print("ready", "h11", listener.getsockname()[1], flush=True)
    while True:
        accepted, address = listener.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(accepted, address[0]), daemon=True).start()
