"""Reads JSON text piece by piece, so that memory does not grow with the file and every error has a line."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from smp_features.errors import SourceError
from smp_features.sources.smpd.text_lines import refuse_utf16

CHUNK_BYTES = 1 << 20
MAX_VALUE_CHARS = 64 << 20
"""A single record longer than this is taken for a file whose brackets or quotes are broken."""

_SPACE = " \t\r\n"
_COMMA = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
_NUMBERED = re.compile(r'[ \t\r\n]*,[ \t\r\n]*"(\d+)"[ \t\r\n]*:[ \t\r\n]*')
_EDGE = 16
"""Characters near the end of what was read in which a token may be cut, so that a complaint there proves nothing."""


def _missing(_: str) -> None:
    """Return what the constants NaN, Infinity and -Infinity stand for."""


class JsonText:
    """A cursor over a UTF-8 JSON file. The caller walks the containers; values are decoded by the `json` module.

    The `json` module decodes, not an event parser, because it takes lone surrogates and NaN, which real files contain,
    and says where an error is. NaN and Infinity, which programs write for what is missing, are null.

    Args:
        path: The file; a byte-order mark is skipped.
        file: The same file, open for reading bytes.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._values: Any = json.JSONDecoder(parse_constant=_missing)
        self._text = ""
        self._at = 0
        self._lines_before = 0
        self._ended = False

    def peek(self) -> str:
        """Return the next character that is not white space, without taking it; '' at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, wanted: str) -> str:
        """Take the next character that is not white space, one of `wanted`.

        Raises:
            SourceError: Another one is there, or the file ends.
        """
        found = self.peek()
        if not found or found not in wanted:
            raise self.malformed(self._at, ended=not found)
        self._at += 1
        return found

    def value(self) -> object:
        """Decode and take the next JSON value.

        Raises:
            SourceError: It is malformed, or the file ends within it.
        """
        self.peek()
        while True:
            try:
                value, end = self._values.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                open_string = error.msg.startswith("Unterminated string")
                cut = open_string or error.pos >= len(self._text) - _EDGE
                if cut and len(self._text) - self._at < MAX_VALUE_CHARS and self._more():
                    continue
                ended = self._ended and (open_string or not self._text[error.pos :].strip())
                raise self.malformed(error.pos, ended) from None
            except (ValueError, RecursionError):  # an integer of thousands of digits, or brackets without end
                raise self.malformed(self._at) from None
            if end == len(self._text) and self._more():
                continue  # a number may go on in the next piece
            self._at = end
            return value

    def members(self) -> Iterator[str]:
        """Walk an object: yield each key, with the cursor on its value, which the caller takes before going on."""
        self.take("{")
        if self.peek() == "}":
            self.take("}")
            return
        while True:
            yield self._key()
            if self.take(",}") == "}":
                return

    def _key(self) -> str:
        """Take a key and the colon behind it."""
        if self.peek() != '"':
            raise self.malformed(self._at, ended=not self.peek())
        key = str(self.value())
        self.take(":")
        return key

    def _decoded(self, at: int) -> tuple[object, int] | None:
        """Decode the value at a position of the buffer; None if it is not whole, or may not be, or is malformed."""
        try:
            value, end = self._values.scan_once(self._text, at)
        except (StopIteration, ValueError, RecursionError):
            return None
        return (value, end) if end < len(self._text) else None

    def elements(self) -> Iterator[object]:
        """Walk an array: yield each element, decoded, with the cursor behind it.

        Raises:
            SourceError: Malformed, or the file ends within it.
        """
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            yield self.value()
            # Most elements lie in the buffer with their neighbours, where a comma and a decoding are all it takes.
            while (begin := _COMMA.match(self._text, self._at)) is not None:
                decoded = self._decoded(begin.end())
                if decoded is None:
                    break
                value, self._at = decoded
                yield value
            if self.take(",]") == "]":
                return

    def cells(self) -> Iterator[tuple[str, object]]:
        """Walk an object: yield each key with its value, decoded, with the cursor behind it.

        Raises:
            SourceError: Malformed, or the file ends within it.
        """
        self.take("{")
        if self.peek() == "}":
            self.take("}")
            return
        while True:
            key = self._key()
            yield key, self.value()
            while (begin := _NUMBERED.match(self._text, self._at)) is not None:
                decoded = self._decoded(begin.end())
                if decoded is None:
                    break
                value, self._at = decoded
                yield begin[1], value
            if self.take(",}") == "}":
                return

    def end(self) -> None:
        """Check that nothing but white space is left.

        Raises:
            SourceError: Something is.
        """
        if self.peek():
            raise SourceError(f"{self.place()}: there is text after the end of the JSON value.")

    def place(self, at: int | None = None) -> str:
        """Return `file:line` of the cursor."""
        lines = self._lines_before + self._text.count("\n", 0, self._at if at is None else at)
        return f"{self.path}:{lines + 1}"

    def malformed(self, at: int, ended: bool = False) -> SourceError:
        """Return the error for text that is no JSON at a position of the buffer."""
        if ended:
            return SourceError(
                f"{self.place(len(self._text))}: the file ends in the middle of its JSON; it is truncated.",
                "Copy or download it again.",
            )
        line_start = self._text.rfind("\n", 0, at) + 1
        return SourceError(f"{self.place(at)}: malformed JSON at column {at - line_start + 1} of what was being read.")

    def _more(self) -> bool:
        """Read the next piece of the file behind what is not taken yet; False at its end."""
        if self._ended:
            return False
        begins = self._file.tell() == 0
        raw = self._file.read(CHUNK_BYTES)
        if begins:
            refuse_utf16(self.path, raw)
        self._lines_before += self._text.count("\n", 0, self._at)
        self._text = self._text[self._at :]
        self._at = 0
        try:
            self._text += self._decode.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            line = self.place(len(self._text))
            raise SourceError(
                f"{line}: bytes that are not UTF-8, {error.start} bytes into this piece.", "Save it as UTF-8."
            ) from None
        self._ended = not raw
        return True
