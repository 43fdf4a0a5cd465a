"""lbproxy itself: one process with a listener and a cluster for each lane, its metrics and its access log."""

import http.client
import json
import re
import socket

from processes import Failure, Process

HEAD = """
workers = 1
watch = false
drain_timeout = "1s"
[admin]
address = "unix:{directory}/admin.sock"
[log]
access = {{ file = "access.log" }}
"""

# Half a request ends by itself and soon; only an idle client connection is given time, since the machine may be busy.
# Long times towards backends: what was sent to one is seen by it, and connections stay pooled.
LANE = """
[[listener]]
name = "{name}"
address = "127.0.0.1:0"
cluster = "{name}"
trusted_proxies = {trusted}
[listener.timeouts]
header = "400ms"
idle = "12s"
request_body = "400ms"
[cluster.{name}]
backends = ["127.0.0.1:{port}"]
retry = {{ attempts = 1 }}
timeouts = {{ response = "10s", idle = "60s" }}
"""

SERIES = re.compile(r'(\w+)(?:\{(.*)\})? (\S+)')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class AdminConnection(http.client.HTTPConnection):
    """HTTP over the admin socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=5)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Balancer:
    """The process under test."""

    def __init__(self, program, directory, lanes):
        """`lanes`: (name, port of its backend, whether clients are trusted)."""
        self.directory = directory / "lbproxy"
        self.directory.mkdir()
        config = self.directory / "lb.toml"
        sections = [HEAD.format(directory=self.directory)]
        for name, port, trusted in lanes:
            networks = '["127.0.0.0/8"]' if trusted else "[]"
            sections.append(LANE.format(name=name, port=port, trusted=networks))
        config.write_text("".join(sections))
        self.process = Process("lbproxy", [program, "--config", config], self.directory)
        try:
            self.process.wait_for("readiness", lambda: self.get("/readyz") is not None)
        except Failure:
            self.process.stop()
            raise

    def get(self, path):
        """An answer of the admin server as text; None if there is none or it is not 200."""
        connection = AdminConnection(self.directory / "admin.sock")
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            text = response.read().decode()
            return text if response.status == 200 else None
        except OSError:
            return None
        finally:
            connection.close()

    def ports(self):
        """The port of each listener."""
        status = json.loads(self.get("/api/v1/status"))
        return {one["name"]: int(one["bound"][0].rpartition(":")[2]) for one in status["listeners"]}

    def metrics(self):
        """All series: (name, labels, value)."""
        found = []
        for line in self.get("/metrics").splitlines():
            matched = SERIES.fullmatch(line)
            if matched:
                name, labels, value = matched.groups()
                found.append((name, dict(LABEL.findall(labels or "")), float(value)))
        return found

    def access_log(self):
        """The lines of the access log; whole once the process has ended."""
        text = (self.directory / "access.log").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def stop(self):
        """SIGTERM; the exit code."""
        return self.process.stop()


def total(metrics, name, **labels):
    """Sum of the series of this name that have these labels."""
    return sum(
        value
        for known, has, value in metrics
        if known == name and all(has.get(key) == wanted for key, wanted in labels.items())
    )
