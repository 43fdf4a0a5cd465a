"""What a Python backend writes down of each request: one JSON object a line."""

import hashlib
import json
import threading


class Notes:
    """A file of notes, written line by line."""

    def __init__(self, path):
        self._file = open(path, "a", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()

    def served(self, peer, method, target, host, body):
        """A request that was read to its end."""
        self._write(
            peer=peer,
            method=text(method),
            target=text(target),
            host=text(host),
            length=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
        )

    def refused(self, peer, why):
        """A request that the parser did not take."""
        self._write(peer=peer, refused=str(why))

    def _write(self, **facts):
        with self._lock:
            self._file.write(json.dumps(facts) + "\n")


def text(value):
    """Bytes as text, one character for each."""
    if value is None:
        return ""
    return value.decode("latin-1") if isinstance(value, bytes) else value
