"""The process that an `Inspector` runs decoders in: pictures in, one line of facts out for each."""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import os
import resource
import sys
from typing import BinaryIO

from smp_features.images.decoding import ImageFacts, inspect_image
from smp_features.images.inspector import OUT_OF_MEMORY, READY


def main(deadline_s: float, max_memory: int) -> None:
    """Inspect what comes in on standard input until it ends.

    Args:
        deadline_s: The deadline that whoever started this keeps; should that process be gone, this one ends at twice
            that time, even where a decoder holds the interpreter's lock for ever.
        max_memory: Bytes that this process may hold.
    """
    answers = os.dup(sys.stdout.fileno())
    silence = os.open(os.devnull, os.O_WRONLY)
    for noisy in (sys.stdout, sys.stderr):  # C libraries report there; statuses say what there is to say
        os.dup2(silence, noisy.fileno())
    _, allowed = resource.getrlimit(resource.RLIMIT_DATA)
    most = max_memory if allowed == resource.RLIM_INFINITY else min(max_memory, allowed)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.write(answers, READY)
    pictures = sys.stdin.buffer
    while size := pictures.read(8):
        faulthandler.dump_traceback_later(2 * deadline_s, exit=True)
        facts = _inspect(pictures, int.from_bytes(size, "big"))
        faulthandler.cancel_dump_traceback_later()
        os.write(answers, json.dumps(dataclasses.asdict(facts)).encode() + b"\n")


def _inspect(pictures: BinaryIO, size: int) -> ImageFacts:
    try:
        return inspect_image(pictures.read(size))
    except MemoryError:
        return ImageFacts(None, None, None, None, OUT_OF_MEMORY, "Decoding it took more memory than a picture may.")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
