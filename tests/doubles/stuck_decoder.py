"""An inspecting process whose decoder never returns, crashes, or takes all memory, as the file's content says."""

from __future__ import annotations

import ctypes
import re
import sys

from smp_features.images import ImageFacts, inspecting_process

sound = inspecting_process.inspect_image


def inspect_image(data: bytes) -> ImageFacts:
    if data == b"hang":
        re.match(r"(a+)+$", "a" * 60 + "b")  # for years, in C code that holds the interpreter's lock
    if data == b"crash":
        ctypes.string_at(0)
    if data == b"swallow":
        bytearray(3 << 30)
    return sound(data)


if __name__ == "__main__":
    inspecting_process.inspect_image = inspect_image
    inspecting_process.main(float(sys.argv[1]), int(sys.argv[2]))
