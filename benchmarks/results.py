"""Figures kept between runs as JSON, and the page that shows them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "figures"

Section = Callable[[dict[str, Any]], str]

HEAD = """# Results

Written by `make bench` from the figures in `benchmarks/figures/`; `make bench BENCH=ceiling` measures one part again.
Every ratio was measured side by side in one run on the machine named below it. The page as a whole is not one run:
its parts were measured on different days, and the code changed in between. Each part ends with its date and, where it
was kept, its commit.
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


def render(sections: Mapping[str, Section], contents: Callable[[str], str | None] = lambda _: None) -> str:
    """Return the page: a section per benchmark, with its machine; one that was never measured says so.

    Args:
        sections: By the benchmarks' names; given their figures, with the name of the contents under `contents`.
        contents: Returns what a benchmark makes its contents of, if it makes its own, whatever the record says.
    """
    parts = [HEAD]
    for name, section in sections.items():
        record = load(name)
        if record is None:
            parts.append(NEVER.get(name, f"## {name}\n\nNot measured yet: `make bench BENCH={name}`.\n"))
            continue
        record["contents"] = contents(name) or record["contents"]
        told = section({"contents": record["contents"], **record["figures"]})
        parts.append(told.rstrip() + "\n\n" + _measured_on(record) + "\n")
    return "\n".join(parts)


NEVER = {
    "gpu": """## One GPU

Not measured to its end, for want of a GPU: `make bench BENCH=gpu` was started once, on a borrowed H200 with 16 cores,
and ran out of the time there was. Its figures were not kept. Its log said until then, of a task's pipeline without
Spark: BLIP base captioned 74 pictures a second in float32 and 202 with the settings of `conf/cluster.yaml`; ViT-B/32
embedded 4,700 to 5,800 titles a second in float32, handed to it 256 at a time where the stage hands 2,048, and 600 to
760 pictures in either dtype.
"""
}
"""What stands in the place of a section that was never measured, where there is more to say."""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; numbers are written by the caller."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def _measured_on(record: Mapping[str, Any]) -> str:
    machine, versions = record["machine"], record["versions"]
    listed = ", ".join(f"{package} {version}" for package, version in versions.items())
    measured = f"commit {record['commit']}" if record.get("commit") else "commit not kept"
    return (
        f"*{record['measured_at']}, {measured}, {machine['cores']} cores of {machine['processor']}, "
        f"{machine['memory_gib']} GiB, {machine['system']}; contents: {record['contents']}; {listed}.*"
    )
