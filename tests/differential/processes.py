"""Processes that are started here and ended here, by their ids."""

import os
import signal
import socket
import subprocess
import time

PATIENCE = 20.0


class Failure(Exception):
    """Something that the check needs does not work."""


class Process:
    """A child in a process group of its own, whose output goes to files."""

    def __init__(self, name, command, directory, **options):
        self.name = name
        self.out = directory / f"{name}.out"
        self.err = directory / f"{name}.err"
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True, **options
            )

    def _ended(self):
        """How it ended, if it did. It is not reaped: as long as it is not, the number of its group stays its own."""
        return os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)

    def wait_for(self, what, condition):
        """Until `condition` gives something; its value."""
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            if ended := self._ended():
                raise Failure(f"{self.name} ended with {ended.si_status}: {self.complaint()}")
            if time.monotonic() > end:
                raise Failure(f"{self.name}: waited {PATIENCE:.0f} s in vain for {what}: {self.complaint()}")
            time.sleep(0.02)
        return value

    def complaint(self):
        """The end of what it said."""
        return (self.err.read_text(errors="replace") + self.out.read_text(errors="replace"))[-2000:].strip()

    def stop(self):
        """SIGTERM, and SIGKILL for what is left of its group; the exit code."""
        if self._child.returncode is None:
            os.kill(self._child.pid, signal.SIGTERM)
            end = time.monotonic() + 10
            while not self._ended() and time.monotonic() < end:
                time.sleep(0.01)
            os.killpg(self._child.pid, signal.SIGKILL)
        return self._child.wait()


def free_port():
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accepts(port):
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
