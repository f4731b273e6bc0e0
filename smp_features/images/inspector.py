"""Inspects pictures in a process of its own, which is ended where a decoder does not come back.

A decoder that is stuck in C code cannot be interrupted from Python, and one that crashes or takes all memory takes its
process with it. So that neither a hung nor a lost worker is the price of one file, decoders run one process further.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import IO

from smp_features.errors import StageError
from smp_features.images.decoding import ImageFacts

DEADLINE_S = 120.0
"""Seconds that one picture may take. The slowest kind at the most pixels (JPEG 2000) took 19 on a busy machine."""

MAX_MEMORY = 4 << 30
"""Bytes that a decoder may hold. The most at 64 megapixels was 1.2 GB, also for JPEG 2000."""

TIMEOUT, OUT_OF_MEMORY, WORKER_LOST = "timeout", "out_of_memory", "worker_lost"
TRANSIENT = (TIMEOUT, OUT_OF_MEMORY, WORKER_LOST)
"""Statuses that say how the machine fared, not what the picture is: a later try may come out otherwise."""

READY = b"ready\n"
_START_S = 120.0
_READ_AT_ONCE = 1 << 16


class Inspector:
    """Inspects pictures, one at a time, within a deadline and within memory.

    Not for several threads at once. The process is started with the first picture and ends with this object, with this
    process, or a little after it if that is killed over a stuck decoder.

    Args:
        deadline_s: Seconds that one picture may take.
        max_memory: Bytes that its decoder may hold.
        program: The module that the process runs.

    Example:
        >>> with Inspector() as inspector:
        ...     inspector.inspect(b"<html>").status
        'not_an_image'
    """

    def __init__(
        self,
        deadline_s: float = DEADLINE_S,
        max_memory: int = MAX_MEMORY,
        program: str = "smp_features.images.inspecting_process",
    ) -> None:
        self._deadline_s = deadline_s
        self._max_memory = max_memory
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Inspector:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def inspect(self, data: bytes) -> ImageFacts:
        """Return what `inspect_image` does, or `timeout`, `out_of_memory` or `worker_lost`, which are no verdicts.

        Args:
            data: The bytes of the file.

        Raises:
            StageError: The process does not start.
        """
        process = self._started()
        deadline = time.monotonic() + self._deadline_s
        answer = b""
        try:
            if _send(process, len(data).to_bytes(8, "big"), deadline) and _send(process, data, deadline):
                answer = _receive(process, deadline)
        except OSError:
            answer = b""  # it ended over the picture
        if answer:
            return ImageFacts(**json.loads(answer))
        late = time.monotonic() >= deadline
        self.close()
        if late:
            return _without_verdict(TIMEOUT, f"Decoding it took longer than {self._deadline_s:g} s.")
        return _without_verdict(WORKER_LOST, "The process that decoded it ended.")

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()  # what ended between two pictures is nobody's fault
        command = [sys.executable, "-P", "-m", self._program, str(self._deadline_s), str(self._max_memory)]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),  # also where files were shipped to
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        with tempfile.TemporaryFile() as said:
            try:
                self._process = process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    env=environment,
                    bufsize=0,
                    start_new_session=True,  # an interrupt from a keyboard is for the process that waits for it
                )
                assert process.stdin is not None
                os.set_blocking(process.stdin.fileno(), False)
                if _receive(process, time.monotonic() + _START_S) == READY:
                    return process
            except OSError as failure:
                self.close()
                raise _not_started(failure.strerror or type(failure).__name__) from failure
            self.close()
            raise _not_started(_last_line(said))


def _without_verdict(status: str, error: str) -> ImageFacts:
    return ImageFacts(None, None, None, None, status, error)


def _not_started(why: str) -> StageError:
    return StageError(
        f"The process that decodes pictures did not start ({why}).",
        "Make room for one more process beside each worker, then run the command again.",
    )


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _send(process: subprocess.Popen[bytes], data: bytes, deadline: float) -> bool:
    """Write all of some bytes; return whether that was done in time."""
    assert process.stdin is not None
    rest = memoryview(data)
    while rest:
        _, writable, _ = select.select([], [process.stdin], [], max(0.0, deadline - time.monotonic()))
        if not writable:
            return False
        rest = rest[os.write(process.stdin.fileno(), rest) :]
    return True


def _receive(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """Return a line; nothing if the process ended, or was late."""
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            return b""
        part = os.read(process.stdout.fileno(), _READ_AT_ONCE)
        if not part:
            return b""
        line += part
    return line
