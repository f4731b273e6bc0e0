"""Figures kept between runs as JSON, and the page that shows them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "figures"

Section = Callable[[dict[str, Any]], str]

HEAD = """# Results

Written by `make bench` from the figures in `benchmarks/figures/`; every ratio was measured side by side in one run on
the machine named below it. `make bench BENCH=ceiling` measures one part again.
"""


def save(name: str, record: Mapping[str, Any]) -> None:
    """Keep one benchmark's record: `figures`, and what they were measured on."""
    FOLDER.mkdir(exist_ok=True)
    _path(name).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def load(name: str) -> dict[str, Any] | None:
    """Return a benchmark's record, or None when it was never measured."""
    path = _path(name)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _path(name: str) -> Path:
    return FOLDER / f"{name.replace(':', '-')}.json"


def render(sections: Mapping[str, Section]) -> str:
    """Return the page: a section per benchmark, with its machine; one that was never measured says so."""
    parts = [HEAD]
    for name, section in sections.items():
        record = load(name)
        if record is None:
            parts.append(f"## {name}\n\nNot measured yet: `make bench BENCH={name}`.\n")
            continue
        parts.append(section(record["figures"]).rstrip() + "\n\n" + _measured_on(record) + "\n")
    return "\n".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; numbers are written by the caller."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def _measured_on(record: Mapping[str, Any]) -> str:
    machine, versions = record["machine"], record["versions"]
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"*{record['measured_at']}, {machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB, "
        f"{machine['system']}; contents: {record['contents']}; {listed}.*"
    )
