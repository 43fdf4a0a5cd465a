"""gunicorn as a backend: gunicorn_server.py NOTES NAME. gunicorn-lax has its compatibility switches turned on."""

import socket
import sys

from gunicorn.app.base import BaseApplication
from gunicorn.workers.gthread import ThreadWorker
from notes import Notes

SETTINGS = {
    "workers": 1,
    "threads": 16,
    "keepalive": 75,
    "timeout": 0,
    "graceful_timeout": 1,
    "loglevel": "critical",
    "limit_request_line": 0,
    "limit_request_fields": 400,
    "limit_request_field_size": 65536,
}
LAX = {
    "permit_obsolete_folding": True,
    "strip_header_spaces": True,
    "permit_unconventional_http_method": True,
    "permit_unconventional_http_version": True,
    "header_map": "dangerous",
}


class Worker(ThreadWorker):
    """Notes what the parser refuses."""

    def handle_error(self, req, client, addr, exc):
        notes.refused(addr[0], f"{type(exc).__name__}: {exc}")
        super().handle_error(req, client, addr, exc)


def app(environ, start_response):
    """Reads the body, writes the note, answers."""
    body = environ["wsgi.input"].read()
    method = environ["REQUEST_METHOD"]
    notes.served(environ["REMOTE_ADDR"], method, environ["RAW_URI"], environ.get("HTTP_HOST"), body)
    saw = environ.get("HTTP_X_REQUEST_ID", "-")
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Saw", saw), ("Content-Length", "5")])
    return [b"" if method == "HEAD" else b"seen\n"]


class Application(BaseApplication):
    """gunicorn without its command line."""

    def __init__(self, settings):
        self.settings = settings
        super().__init__()

    def load_config(self):
        for key, value in self.settings.items():
            if key in self.cfg.settings:
                self.cfg.set(key, value)

    def load(self):
        return app


if __name__ == "__main__":
    notes = Notes(sys.argv[1])
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.set_inheritable(True)
    settings = SETTINGS | (LAX if sys.argv[2] == "gunicorn-lax" else {})
    settings |= {"bind": f"fd://{listener.fileno()}", "worker_class": Worker, "control_socket_disable": True}
    print("ready", sys.argv[2], listener.getsockname()[1], flush=True)
    Application(settings).run()
