"""Notices fields that a file's records no longer have, have under another name, or have as something else."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from smp_features.errors import SourceError, nearest
from smp_features.sources.smpd import fields
from smp_features.sources.smpd.json_rows import Record

KNOWN: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "category": (("Category",), ("Subcategory",), ("Concept",)),
    "text": (("Title", "Tile"), ("Mediatype",), ("Alltags",)),
    "temporalspatial": (("Postdate",), ("Latitude",), ("Longitude",), ("Geoaccuracy",)),
    "additional": (("Pathalias",), ("Ispublic",), ("Mediastatus",)),
    "user_data": (
        ("photo_firstdate",),
        ("photo_count",),
        ("ispro",),
        ("canbuypro",),
        ("photo_firstdatetaken",),
        ("timezone_offset",),
        ("timezone_id", "timezone_timezone_id"),
        ("user_description",),
        ("location_description",),
    ),
}
"""The fields of each file, by what it is about; of several spellings any will do."""

_IDS = frozenset({"pid", "uid"})
_EVERYWHERE = _IDS | {name.lower() for known in KNOWN.values() for names in known for name in names}
_TYPES = {bool: "true or false", list: "a list", dict: "an object"}
_LEAST_ODD = 2
"""Values that must be odd, and no other there, before a field counts as retyped: one may be a slip."""
_MOST_SHAPES = 1_000


class Fields:
    """What the records of one half state, field by field.

    Attributes:
        odd: Values that cannot be read, or are of another JSON type, by file, field and what they are.
        read: Fields of which a value was read, by file and field.
    """

    def __init__(self) -> None:
        self.odd: Counter[tuple[str, str, str]] = Counter()
        self.read: set[tuple[str, str]] = set()
        self._shapes: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)

    def text(self, about: str, field: str, value: object) -> None:
        """Note the JSON type of a text; the entries of a list become one, so lists are read."""
        if isinstance(value, str):
            if value:
                self.read.add((about, field))
        elif value is not None:
            self.odd[about, field, _TYPES.get(type(value), "a number")] += 1
            if isinstance(value, list):
                self.read.add((about, field))

    def parsed(self, about: str, field: str, value: object, understood: bool) -> None:
        """Note whether a value that is no text was understood."""
        if understood:
            self.read.add((about, field))
        elif not fields.is_missing(value):
            self.odd[about, field, "not understood"] += 1

    def note(self, records: Mapping[str, Record]) -> None:
        """Note the fields of a row's records."""
        for about, record in records.items():
            shapes = self._shapes[about]
            if len(shapes) > _MOST_SHAPES:
                names = tuple(dict.fromkeys(name for shape in shapes for name in shape))
                shapes.clear()
                shapes[names] = 1
            shapes[tuple(record)] += 1

    def quirks(self) -> Counter[str]:
        """Return the odd values and the unknown fields, counted by a name for people."""
        found = Counter({f"{field} that is {what}": count for (_, field, what), count in self.odd.items()})
        for about in self._shapes:
            for name in self._unknown(about):
                found[f"records of {about} with the unknown field {name[:40]}"] += sum(
                    count for shape, count in self._shapes[about].items() if name in shape
                )
        return found

    def refuse(self, files: Mapping[str, Path], without: Iterable[str] = ()) -> None:
        """Refuse a half of which no record has a field, or every record has it as something that cannot be read.

        Args:
            files: File by what it is about.
            without: Fields that this source never had.

        Raises:
            SourceError: A known field is missing from, or retyped in, every record of a file; the nearest is named.
        """
        expected = {name.lower() for name in without}
        for about, path in files.items():
            if self._shapes[about]:
                self._refuse_absent(about, path, expected)
                self._refuse_retyped(about, path)

    def _refuse_absent(self, about: str, path: Path, expected: set[str]) -> None:
        present = expected.union(*self._shapes[about])
        absent = [names for names in KNOWN[about] if present.isdisjoint(name.lower() for name in names)]
        if absent:
            unknown = sorted(self._unknown(about))
            listed = ", ".join(names[0] for names in absent)
            not_known = f"; not known are {', '.join(name[:40] for name in unknown)}" if unknown else ""
            raise SourceError(
                f"{path}: no record has {listed}{not_known}.",
                f"{_renamed(absent, unknown)}If this source never had it, set source.without=[{listed}]; "
                "--allow-removal takes it as missing this once.",
            )

    def _refuse_retyped(self, about: str, path: Path) -> None:
        for (where, field, what), count in sorted(self.odd.items()):
            if where == about and count >= _LEAST_ODD and (about, field) not in self.read:
                raise SourceError(
                    f"{path}: {field} is {what} wherever it is stated, in {count:,} records.",
                    "Write it as the challenge does; --allow-removal takes it as it is this once.",
                )

    def _unknown(self, about: str) -> set[str]:
        return {name for shape in self._shapes[about] for name in shape} - _EVERYWHERE


def _renamed(absent: list[tuple[str, ...]], unknown: list[str]) -> str:
    for name in (name for names in absent for name in names):
        hint = nearest(name.lower(), unknown) if unknown else ""
        if hint.startswith("Did"):
            return f"For {name}: {hint} "
    return ""
