"""One column's values on disk, in order, so that columns that lie behind one another can be read side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from smp_features.sources.base import repaired

SPILL_ROWS = 2_000
"""Values of one column held in memory before they are spilled."""

_SCHEMA = pa.schema([("value", pa.large_string()), ("json", pa.bool_())])


class SpilledColumn:
    """Values are added one after the other, while inside; then they are read back.

    Args:
        path: A file to create.
        limit: Keep only this many values; None keeps all.

    Attributes:
        rows: Values added.
    """

    def __init__(self, path: Path, limit: int | None = None) -> None:
        self.rows = 0
        self._path = path
        self._limit = limit
        self._values: list[str | None] = []
        self._json: list[bool] = []

    def __enter__(self) -> SpilledColumn:
        self._file = pa.OSFile(str(self._path), "wb")
        self._writer = pa.ipc.new_stream(self._file, _SCHEMA)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._spill()
        self._writer.close()
        self._file.close()

    def add(self, value: object) -> None:
        """Add a value; lone surrogates of a text, which no file holds, become U+FFFD."""
        self.rows += 1
        if self._limit is not None and self.rows > self._limit:
            return
        if isinstance(value, str):
            self._values.append(value if value.isascii() else repaired(value))
        else:
            self._values.append(None if value is None else json.dumps(value))
        self._json.append(not isinstance(value, str))
        if len(self._values) >= SPILL_ROWS:
            self._spill()

    def __iter__(self) -> Iterator[object]:
        """Yield the values that were kept."""
        with pa.OSFile(str(self._path)) as file, pa.ipc.open_stream(file) as batches:
            for batch in batches:
                values = batch["value"].to_pylist()
                if batch["json"].true_count:
                    flags = batch["json"].to_pylist()
                    yield from (
                        json.loads(value) if flag and value is not None else value
                        for value, flag in zip(values, flags, strict=True)
                    )
                else:
                    yield from values

    def _spill(self) -> None:
        self._writer.write_batch(pa.record_batch([self._values, self._json], schema=_SCHEMA))
        self._values.clear()
        self._json.clear()
