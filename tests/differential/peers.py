"""The backends: what each needs, how it is started, and what it says it has seen.

A peer is one program; its doors are the ports that it reads requests on, one for each way to configure its parser.
Those whose name ends in -lax have every leniency turned on that the program offers: what lbproxy sends must leave even
them no choice.
"""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from processes import Failure, Process, accepts, free_port

HERE = Path(__file__).resolve().parent


@dataclass
class Seen:
    """One request as a backend's parser saw it; `refused` says why it did not take it."""

    method: str = ""
    target: str = ""
    host: str = ""
    length: int = 0
    sha256: str = ""
    refused: str = ""

    def facts(self):
        """As wire.Request.facts."""
        return (self.method, self.target, self.host, self.length, self.sha256)


class Peer:
    """A program that is a backend."""

    doors = ()
    package = ""
    # ASGI has no place for the "?" of an empty query.
    forgets_empty_query = False

    def __init__(self, tools, recorder):
        self.tools = tools
        self.recorder = recorder
        self.directory = None
        self.process = None

    def missing(self):
        """Whether it cannot be started here."""
        raise NotImplementedError

    def start(self, directory, recorder_port):
        """Starts it; the port of each door."""
        raise NotImplementedError

    def seen(self):
        """The requests of each connection in order, by the address that it came from."""
        raise NotImplementedError

    def stop(self):
        """Ends it."""
        if self.process is not None:
            self.process.stop()

    def reads_body(self, _request):
        """Whether it looks at a body behind this head."""
        return True

    def agrees(self, request, seen):
        """Whether it saw the request as the strict reader reads it."""
        if not self.reads_body(request) and seen.length == 0:
            return request.facts()[:3] == seen.facts()[:3]
        method, target, host, length, sha256 = request.facts()
        if self.forgets_empty_query and target.find("?") == len(target) - 1:
            target = target[:-1]
        if seen.length < 0:
            return (method, target) == (seen.method, seen.target)
        return (method, target, host, length, sha256) == seen.facts()


class NotingPeer(Peer):
    """A program with a handler of ours, which writes notes and says its ports on standard output."""

    def command(self, notes):
        """What is run."""
        raise NotImplementedError

    def start(self, directory, _recorder_port):
        self.notes = directory / f"{self.doors[0]}.notes"
        self.notes.touch()
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
        self.process = Process(self.doors[0], self.command(self.notes), directory, env=environment)
        ports = self.process.wait_for("its ports", self._ports)
        for port in ports.values():
            self.process.wait_for("its port", lambda port=port: accepts(port))
        return ports

    def _ports(self):
        lines = [line.split() for line in self.process.out.read_text().splitlines() if line.startswith("ready ")]
        ports = {name: int(port) for _, name, port in lines}
        return ports if len(ports) == len(self.doors) else None

    def seen(self):
        seen = {}
        for line in self.notes.read_text().split("\n")[:-1]:
            facts = json.loads(line)
            seen.setdefault(facts.pop("peer"), []).append(Seen(**facts))
        return seen


class PythonServer(NotingPeer):
    """http.server of the Python that runs this."""

    doors = ("python",)

    def missing(self):
        return False

    def command(self, notes):
        return [self.tools.own_python, HERE / "backends/plain_server.py", notes]


class PackagePeer(NotingPeer):
    """A server of a Python package, run by the interpreter that has it."""

    script = ""
    module = ""

    def missing(self):
        probe = [self.tools.python, "-c", f"import {self.module}"]
        return subprocess.run(probe, capture_output=True, check=False).returncode != 0

    def command(self, notes):
        return [self.tools.python, HERE / "backends" / self.script, notes, self.doors[0]]


class H11(PackagePeer):
    """h11 behind a socket."""

    doors, package = ("h11",), "h11 from PyPI"
    script, module = "h11_server.py", "h11"


class Uvicorn(PackagePeer):
    """uvicorn with its parser in Python."""

    doors, package = ("uvicorn",), "uvicorn from PyPI"
    forgets_empty_query = True
    script, module = "uvicorn_server.py", "uvicorn"


class UvicornHttptools(PackagePeer):
    """uvicorn with llhttp."""

    doors, package = ("uvicorn-httptools",), "uvicorn and httptools from PyPI"
    forgets_empty_query = True
    script, module = "uvicorn_server.py", "uvicorn, httptools"

    def reads_body(self, request):
        """httptools 0.9.0 leaves the body behind a head with Upgrade to whoever takes the connection over, and uvicorn
        0.54.0 answers as if there were none. lbproxy uses such a connection for no other request."""
        return request.get("upgrade") is None


class Gunicorn(PackagePeer):
    """gunicorn as it comes."""

    doors, package = ("gunicorn",), "gunicorn from PyPI"
    script, module = "gunicorn_server.py", "gunicorn"


class GunicornLax(Gunicorn):
    """gunicorn with its compatibility switches."""

    doors = ("gunicorn-lax",)


class Node(NotingPeer):
    """Node's http, strict and lax in one process."""

    doors, package = ("node", "node-lax"), "Debian package nodejs"

    def missing(self):
        return shutil.which("node") is None

    def command(self, notes):
        return [shutil.which("node"), HERE / "backends/node_server.js", notes]


class ProxyingPeer(Peer):
    """A proxy of its own: its access log counts, and the recorder behind it tells what it understood."""

    program = ""

    def path(self):
        """The program, which may stand where only root looks."""
        return shutil.which(self.program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")

    def missing(self):
        return self.path() is None

    def start(self, directory, recorder_port):
        self.directory = directory / self.program
        self.directory.mkdir(mode=0o755)
        self.log = self.directory / "access.log"
        # A port that was free can be taken by another before it is bound.
        for attempt in range(3):
            ports = {door: free_port() for door in self.doors}
            try:
                self.launch(ports, recorder_port)
                for port in ports.values():
                    self.process.wait_for("its port", lambda port=port: accepts(port))
                return ports
            except Failure:
                self.process.stop()
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def launch(self, ports, recorder_port):
        """Writes the configuration and starts it."""
        raise NotImplementedError

    def write(self, name, text):
        """A configuration file."""
        path = self.directory / name
        path.write_text(text)
        return path

    def log_lines(self):
        """(address, id, status, request line) of each line of the access log."""
        for line in self.log.read_bytes().decode("latin-1").split("\n"):
            if line:
                peer, seen_id, status, request_line = line.split(" ", 3)
                yield peer, seen_id, status, request_line

    def seen(self):
        seen = {}
        for peer, seen_id, status, request_line in self.log_lines():
            request = self.recorder.by_id.get(seen_id)
            if request is not None:
                entry = self.understood(request, request_line)
            elif status == "200":
                entry = own_answer(request_line)
            else:
                entry = Seen(refused=status)
            seen.setdefault(peer, []).append(entry)
        return seen

    def understood(self, request, _request_line):
        """What the request says that it sent to the recorder."""
        return Seen(*request.facts())


def own_answer(request_line):
    """A request that the proxy answered itself, as OPTIONS * by Apache: all that is known is its first line."""
    method, target = first_words(request_line)
    return Seen(method=method, target=target, host="?", length=-1)


def first_words(request_line):
    """Method and target."""
    method, target, *_ = [*request_line.split(" "), "", ""]
    return method, target


class Nginx(ProxyingPeer):
    """nginx before the recorder."""

    doors, package, program = ("nginx", "nginx-lax"), "Debian package nginx", "nginx"

    def launch(self, ports, recorder_port):
        server = """
    server {{
        listen 127.0.0.1:{port};
        {leniency}
        location / {{
            proxy_pass http://recorder;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Seen-Id $request_id;
        }}
    }}"""
        lax = "ignore_invalid_headers off; underscores_in_headers on; merge_slashes off;"
        servers = server.format(port=ports["nginx"], leniency="") + server.format(port=ports["nginx-lax"], leniency=lax)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "\n".join(f"    {kind}_temp_path {self.directory}/{kind};" for kind in kinds)
        path = self.write(
            "nginx.conf",
            f"""
daemon off;
worker_processes 1;
pid {self.directory}/nginx.pid;
error_log {self.directory}/error.log warn;
events {{ worker_connections 1024; }}
http {{
{paths}
    log_format seen '$remote_addr $request_id $status $request';
    access_log {self.log} seen;
    keepalive_timeout 75s;
    keepalive_requests 1000000;
    large_client_header_buffers 8 64k;
    client_max_body_size 0;
    upstream recorder {{ server 127.0.0.1:{recorder_port}; keepalive 16; }}
{servers}
}}
""",
        )
        command = [self.path(), "-p", self.directory, "-e", self.directory / "error.log", "-c", path]
        self.process = Process("nginx", command, self.directory)


class Haproxy(ProxyingPeer):
    """HAProxy before the recorder."""

    doors, package, program = ("haproxy", "haproxy-lax"), "Debian package haproxy", "haproxy"

    def launch(self, ports, recorder_port):
        path = self.write(
            "haproxy.cfg",
            f"""
global
    log stdout format raw local0
    maxconn 1000
    nbthread 1
    tune.bufsize 131072
    tune.http.maxhdr 400
defaults
    mode http
    log global
    option dontlognull
    log-format "%ci %ID %ST %r"
    unique-id-format %rt.%ci.%cp
    unique-id-header X-Seen-Id
    timeout connect 5s
    timeout client 75s
    timeout http-keep-alive 75s
    timeout http-request 75s
    timeout server 75s
    default_backend recorder
frontend strict
    bind 127.0.0.1:{ports["haproxy"]}
frontend lax
    bind 127.0.0.1:{ports["haproxy-lax"]}
    option accept-invalid-http-request
backend recorder
    http-reuse always
    server recorder 127.0.0.1:{recorder_port}
""",
        )
        self.process = Process("haproxy", [self.path(), "-db", "-f", path], self.directory)
        self.log = self.process.out

    def log_lines(self):
        # Only requests have an address at the beginning; the rest is what HAProxy says of itself.
        return (line for line in super().log_lines() if line[0].startswith("127."))


class Apache(ProxyingPeer):
    """Apache httpd before the recorder."""

    doors, package, program = ("apache", "apache-lax"), "Debian package apache2", "apache2"
    modules = ("mpm_event", "authz_core", "proxy", "proxy_http", "headers", "unique_id")
    module_directory = Path("/usr/lib/apache2/modules")

    def understood(self, request, request_line):
        # ProxyPass takes "//" at the beginning for its "/"; the line is what the parser has read. The log escapes.
        method, target = first_words(re.sub(r"\\(.)", r"\1", request_line))
        return Seen(method, target, *request.facts()[2:])

    def launch(self, ports, recorder_port):
        host = """
Listen 127.0.0.1:{port}
<VirtualHost 127.0.0.1:{port}>
    ServerName backend
    {leniency}
    AllowEncodedSlashes NoDecode
    MergeSlashes Off
    ProxyPreserveHost On
    RequestHeader set X-Seen-Id "%{{UNIQUE_ID}}e"
    ProxyPass / http://127.0.0.1:{recorder_port}/ nocanon
</VirtualHost>"""
        hosts = "".join(
            host.format(port=ports[door], leniency=leniency, recorder_port=recorder_port)
            for door, leniency in (("apache", ""), ("apache-lax", "HttpProtocolOptions Unsafe LenientMethods Allow0.9"))
        )
        modules = "\n".join(f"LoadModule {name}_module {self.module_directory}/mod_{name}.so" for name in self.modules)
        user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
        path = self.write(
            "apache.conf",
            f"""
{modules}
{user}
ServerRoot {self.directory}
DefaultRuntimeDir {self.directory}
PidFile {self.directory}/apache.pid
ErrorLog {self.directory}/error.log
LogLevel warn
LogFormat "%a %{{UNIQUE_ID}}e %>s %r" seen
CustomLog {self.log} seen
StartServers 1
ServerLimit 1
ThreadsPerChild 64
MaxRequestWorkers 64
KeepAlive On
KeepAliveTimeout 75
MaxKeepAliveRequests 0
Timeout 75
LimitRequestLine 131072
LimitRequestFieldSize 131072
LimitRequestFields 400
{hosts}
""",
        )
        self.process = Process("apache", [self.path(), "-DFOREGROUND", "-f", path], self.directory)


ALL = (Nginx, Haproxy, Apache, PythonServer, H11, Uvicorn, UvicornHttptools, Gunicorn, GunicornLax, Node)
