"""Ctrl-C and SIGTERM: the first unwinds the command, a second one ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)

NAMES = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}
"""What a signal did to the command, in a word."""

CONTINUE = "What was published stays; run the same command to continue."

_cancel: list[Callable[[], object]] = []


def cancel_with(cancel: Callable[[], object]) -> None:
    """Call this when a command is interrupted, so that what it waits for ends soon; the latest takes the place."""
    _cancel[:] = [cancel]


@contextmanager
def unwinding() -> Iterator[list[int]]:
    """Let the first signal raise KeyboardInterrupt in this block and a second one end the process, in the main thread.

    Yields:
        The signals that came: whatever error leaves the block after one is its consequence.
    """
    received: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        if received:
            os.write(2, f"smp: {NAMES[signal.Signals(number)]} twice: left at once. {CONTINUE}\n".encode())
            os._exit(128 + number)
        received.append(number)
        for cancel in _cancel:
            # In a thread of its own: the main thread may be in the middle of a call to the JVM.
            threading.Thread(target=_quietly, args=(cancel,), daemon=True).start()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield received
    finally:
        if not received:  # else a second signal may still come while the process ends
            for number, handler in before.items():
                signal.signal(number, handler)


def _quietly(cancel: Callable[[], object]) -> None:
    try:
        cancel()
    except Exception:  # the JVM may be gone; the command ends either way
        return
