"""Damaged pictures, each of which must end with a status, in time and within memory: `make fuzz`.

Small files of every format are damaged at random: bits, numbers, cuts, splices. Each is inspected and decoded in a
process of its own, which is ended at a deadline; the two must agree, and nothing but a refusal may be raised. What
fails is kept as a file, since a seed makes the same files again only with the same libraries.
"""

from __future__ import annotations

import argparse
import functools
import io
import random
import resource
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from smp_features.images import ImageFacts, ImageRefused, decode_rgb, inspect_image, inspecting_process
from smp_features.images.inspector import TRANSIENT, Inspector

DEADLINE_S = 20.0
MAX_MEMORY = 2 << 30
PROGRAM = "benchmarks.fuzz_images"
WIDTH, HEIGHT = 48, 32
INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

DISAGREEMENT, EXCEPTION = "disagreement", "exception"
FAILURES = (*TRANSIENT, DISAGREEMENT, EXCEPTION)
"""Statuses that are no verdict on a file."""


@dataclass
class Report:
    """What came of the files.

    Attributes:
        files: How many there were.
        statuses: Files by format and status.
        failures: Name and error of what failed.
        slowest_s: Seconds of the slowest file.
        seconds: Of all of them.
    """

    files: int = 0
    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    slowest_s: float = 0.0
    seconds: float = 0.0


@functools.cache
def corpus() -> dict[str, bytes]:
    """Return small sound files, by a name that begins with their format."""
    colours = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    picture = Image.fromarray(colours).resize((WIDTH, HEIGHT))
    others = [picture.rotate(90 * turns).resize((WIDTH, HEIGHT)) for turns in (1, 2)]
    several = {"save_all": True, "append_images": others}
    exif = Image.Exif()
    exif[0x0112] = 6
    files: dict[str, bytes] = {}

    def add(name: str, image: Image.Image, image_format: str, **options: object) -> None:
        written = io.BytesIO()
        if "append_images" in options:  # copies, since saving leaves its settings on a picture
            options["append_images"] = [other.copy() for other in others]
        image.copy().save(written, image_format, **options)
        files[f"{image_format} {name}"] = written.getvalue()

    for mode in ("RGB", "L", "CMYK"):
        for options in ({}, {"progressive": True}, {"quality": 100, "exif": exif.tobytes()}):
            add(f"{mode} {len(files)}", picture.convert(mode), "JPEG", **options)
    add("several", picture, "MPO", **several)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else picture
        add(mode, image if mode == "I;16" else image.convert(mode), "PNG", exif=exif.tobytes())
    add("clear", picture.convert("P"), "PNG", transparency=3)
    add("several", picture, "PNG", **several)
    add("hidden", picture, "PNG", default_image=True, **several)
    add("one", picture, "GIF")
    add("several", picture, "GIF", disposal=2, transparency=0, **several)
    for options in ({}, {"lossless": True}, {"exif": exif.tobytes()}, several):
        add(str(len(files)), picture.convert("RGBA"), "WEBP", **options)
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        add(f"{compression}", picture, "TIFF", compression=compression, exif=exif)
    for mode in ("1", "L", "P", "CMYK", "F", "RGBA", "YCbCr"):
        add(mode, picture.convert(mode), "TIFF", **({} if mode == "1" else several))
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    add("LAB", ImageCms.applyTransform(picture, to_lab), "TIFF", icc_profile=None)  # which states the time
    add("group4", picture.convert("1"), "TIFF", compression="group4")
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        add(mode, picture.convert(mode), "BMP")
    add("png", picture, "ICO", sizes=[(16, 16), (32, 32)])
    add("bmp", picture.convert("RGBA"), "ICO", sizes=[(16, 16), (32, 32)], bitmap_format="bmp")
    for mode in ("1", "L", "RGB"):
        add(mode, picture.convert(mode), "PPM")
    files["PPM deep"] = b"P5 %d %d 1023\n" % (WIDTH, HEIGHT) + bytes(2 * WIDTH * HEIGHT)
    files["PPM plain"] = b"P3 %d %d 255\n" % (WIDTH, HEIGHT) + b"1 2 3 " * (WIDTH * HEIGHT)
    for mode in ("L", "RGB", "RGBA"):
        add(mode, picture.convert(mode), "JPEG2000")
    if "AVIF" in Image.SAVE:
        add("one", picture, "AVIF")
        add("several", picture, "AVIF", **several)
    return files


# -- damage -----------------------------------------------------------------------------------------------------------


def flip_bits(chance: random.Random, data: bytearray, others: list[bytes]) -> None:
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def write_number(chance: random.Random, data: bytearray, others: list[bytes]) -> None:
    at = chance.randrange(min(len(data), chance.choice((64, 512, 1 << 30))))
    size = chance.choice((1, 2, 4))
    number = chance.choice(INTERESTING) & ((1 << 8 * size) - 1)
    data[at : at + size] = number.to_bytes(size, chance.choice(("little", "big")))


def cut(chance: random.Random, data: bytearray, others: list[bytes]) -> None:
    del data[chance.randrange(1, len(data) + 1) :]


def remove(chance: random.Random, data: bytearray, others: list[bytes]) -> None:
    at = chance.randrange(len(data))
    del data[at : at + chance.randrange(1, 64)]


def repeat(chance: random.Random, data: bytearray, others: list[bytes]) -> None:
    at = chance.randrange(len(data))
    data[at:at] = data[at : at + chance.randrange(1, 256)] * chance.choice((1, 2, 50))


def splice(chance: random.Random, data: bytearray, others: list[bytes]) -> None:
    other = chance.choice(others)
    at, begin = chance.randrange(len(data)), chance.randrange(len(other))
    data[at : at + chance.choice((0, 16, 64))] = other[begin : begin + chance.randrange(1, 256)]


def continue_as_other(chance: random.Random, data: bytearray, others: list[bytes]) -> None:
    other = chance.choice(others)
    data[chance.randrange(1, len(data) + 1) :] = other[chance.randrange(len(other)) :]


def scatter(chance: random.Random, data: bytearray, others: list[bytes]) -> None:
    at = chance.randrange(len(data))
    data[at : at + 16] = chance.randbytes(chance.randrange(17))


DAMAGES: tuple[Callable[[random.Random, bytearray, list[bytes]], None], ...] = (
    flip_bits,
    write_number,
    write_number,
    cut,
    remove,
    repeat,
    splice,
    continue_as_other,
    scatter,
)


def damaged(files: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Return names, which say of what file and how, and contents.

    Args:
        files: How many.
        seed: The same makes the same files, but for the time that an AVIF sequence states, if the libraries that write
            the sound ones are the same.
    """
    sound = corpus()
    names = sorted(sound)
    others = [sound[name] for name in names]
    for number in range(files):
        chance = random.Random(f"{seed}/{number}")
        name = chance.choice(names)
        data = bytearray(sound[name])
        done = []
        for _ in range(chance.choice((1, 1, 2, 3))):
            damage = chance.choice(DAMAGES)
            if data:
                damage(chance, data, others)
                done.append(damage.__name__)
        if name.startswith(("PNG", "ICO")) and chance.random() < 0.7:
            mend_checksums(data)  # else hardly any damage would get past them
        yield f"{seed}-{number} {name} {'+'.join(done)}", bytes(data)


def mend_checksums(data: bytearray) -> None:
    """Write the checksum of each PNG chunk anew, as far as chunks can be followed."""
    at = data.find(b"\x89PNG\r\n\x1a\n") + 8
    while 8 <= at <= len(data) - 12:
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            return
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4


# -- what must hold ---------------------------------------------------------------------------------------------------


def judge(data: bytes) -> ImageFacts:
    """Inspect and decode; return what inspecting said, or how it failed.

    Args:
        data: The file.
    """
    try:
        facts = inspect_image(data)
    except MemoryError:
        raise
    except Exception as failure:
        return _failed(EXCEPTION, f"inspect_image raised {type(failure).__name__}: {failure}")
    try:
        picture = decode_rgb(data)
    except ImageRefused as refusal:
        same = (refusal.status, refusal.message) == (facts.status, facts.error)
        return facts if same else _failed(DISAGREEMENT, f"{refusal.status} from one, {facts.status} from the other")
    except MemoryError:
        raise
    except Exception as failure:
        return _failed(EXCEPTION, f"decode_rgb raised {type(failure).__name__}: {failure}")
    if (facts.status, facts.width, facts.height, picture.mode) != ("ok", *picture.size, "RGB"):
        return _failed(DISAGREEMENT, f"{facts} of a picture of {picture.size} in {picture.mode}")
    return facts


def _failed(status: str, error: str) -> ImageFacts:
    return ImageFacts(None, None, None, None, status, error)


def fuzz(files: int, seed: int, keep: Path, *, say: Callable[[str], None] = print) -> Report:
    """Damage files, judge them, and keep those that fail.

    Args:
        files: How many.
        seed: Of the damage.
        keep: Folder for the failures.
        say: Called with a line now and then.
    """
    report = Report()
    began = time.perf_counter()
    with Inspector(DEADLINE_S, MAX_MEMORY, program=PROGRAM) as inspector:
        for name, data in damaged(files, seed):
            started = time.perf_counter()
            facts = inspector.inspect(data)
            report.files += 1
            report.slowest_s = max(report.slowest_s, time.perf_counter() - started)
            report.statuses[name.split()[1], facts.status] += 1
            if facts.status in FAILURES:
                report.failures.append((name, f"{facts.status}: {facts.error}"))
                keep.mkdir(parents=True, exist_ok=True)
                (keep / name.replace("/", "_").replace(" ", "_")).write_bytes(data)
                say(f"FAILED {name}: {facts.status}: {facts.error}")
            if report.files % 2_000 == 0:
                say(f"{report.files:,} files, {len(report.failures)} failures, {time.perf_counter() - began:.0f} s")
    report.seconds = time.perf_counter() - began
    return report


def main(arguments: list[str] | None = None) -> int:
    """Fuzz, print what came of it, and return 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_images", description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000, help="damaged files (20,000)")
    parser.add_argument("--seed", type=int, default=1, help="of the damage (1)")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for what fails")
    chosen = parser.parse_args(arguments)
    report = fuzz(chosen.files, chosen.seed, chosen.keep)
    formats = sorted({name for name, _ in report.statuses})
    for name in formats:
        counts = {status: count for (of, status), count in sorted(report.statuses.items()) if of == name}
        print(f"{name:9} {sum(counts.values()):6,}  " + ", ".join(f"{s} {n:,}" for s, n in counts.items()))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    print(
        f"{report.files:,} files (seed {chosen.seed}) in {report.seconds:.0f} s, {len(report.failures)} failures; "
        f"the slowest file took {report.slowest_s:.1f} s, the process at most {peak:,} MiB"
    )
    return 1 if report.failures else 0


if __name__ == "__main__":
    if len(sys.argv) == 3 and not sys.argv[1].startswith("-"):  # as an Inspector starts its process
        inspecting_process.inspect_image = judge
        inspecting_process.main(float(sys.argv[1]), int(sys.argv[2]))
    else:
        sys.exit(main())
