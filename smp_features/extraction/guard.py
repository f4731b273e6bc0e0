"""A small process beside a worker that kills it once it stands still: a stopped process stops its own watch with it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

_PROGRAM = """
import os, select, sys
worker, limit = int(sys.argv[1]), float(sys.argv[2])
while select.select([0], [], [], limit)[0]:
    if not os.read(0, 4096):
        sys.exit()
os.kill(worker, 9)
"""
"""Reads the worker's signs of life; their end is the worker's own, and nothing is left to guard."""


class Guard:
    """Kills this process when it gives no sign of life for a time, whatever holds it up: SIGSTOP, a debugger, a driver.

    What was in flight is found in the notes by the successor, as after any other death.

    Args:
        limit_s: Seconds without a sign after which the process is killed.
    """

    def __init__(self, limit_s: float) -> None:
        # In a session of its own, so that what stops the worker's group does not stop it.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, str(os.getpid()), str(limit_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._pipe = self._process.stdin
        os.set_blocking(self._pipe.fileno(), False)

    def alive(self) -> None:
        """Give a sign of life."""
        with contextlib.suppress(OSError):  # a guard that was killed guards no more, and a full pipe holds signs enough
            self._pipe.write(b".")

    def close(self) -> None:
        """End the guard."""
        with contextlib.suppress(OSError):
            self._pipe.close()
        self._process.wait()
