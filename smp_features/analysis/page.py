"""What the report's page is made of, and how it becomes one self-contained HTML document."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from smp_features.figures import svg
from smp_features.metrics import Interval

TITLE_LENGTH = 80
"""Characters of a post's title that a page shows."""

THUMBNAIL_PX = 200
"""Longest side of a thumbnail."""

_THUMBNAIL_QUALITY = 80  # JPEG; about 8 kB each at 200 px

Cell = str | int | float | Interval | None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        headers: Column titles, units included.
        rows: Cells; numbers are aligned right, None shows as a dash.
        caption: What the rows are.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        uri: A `data:` URI; the page refers to nothing outside itself.
        text: What it shows, for people who cannot see it.
        caption: How to read it.
    """

    uri: str
    text: str
    caption: str = ""


@dataclass(frozen=True)
class Card:
    """One post of the gallery.

    Attributes:
        heading: Its measure, in words.
        thumbnail: A `data:` URI, or None where the picture cannot be shown.
        lines: Label and text pairs; untrusted.
    """

    heading: str
    thumbnail: str | None
    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Gallery:
    """Cards under one heading."""

    title: str
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Folded:
    """Long text that opens on a click, and is left closed in print."""

    title: str
    text: str


@dataclass(frozen=True)
class Note:
    """A paragraph between other blocks; code in backticks is set as code."""

    text: str


Block = Table | Picture | Gallery | Folded | Note


@dataclass(frozen=True)
class Section:
    """A chapter of the page.

    Attributes:
        anchor: Its id.
        title: Its heading.
        blocks: In order.
        missing: What makes it, when there is nothing to show yet; shown instead of the blocks.
    """

    anchor: str
    title: str
    blocks: tuple[Block, ...] = ()
    missing: str | None = None


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: Of the document.
        subtitle: When and from which run it was made.
        warnings: What a reader must know before any number.
        tiles: The headline numbers: label, value, explanation.
        sections: In order.
    """

    title: str
    subtitle: str
    warnings: tuple[str, ...]
    tiles: tuple[tuple[str, str, str], ...]
    sections: tuple[Section, ...]


def render(page: Page) -> str:
    """Return the page as one HTML document without any reference to the outside; every text is escaped."""
    environment = Environment(
        loader=PackageLoader("smp_features.analysis", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = show
    environment.filters["spans"] = lambda text: list(enumerate(text.split("`")))
    environment.tests["numeric"] = lambda value: isinstance(value, int | float | Interval)
    return environment.get_template("report.html").render(page=page)


def show(value: Cell, decimals: int = 3) -> str:
    """Return how a cell reads: thousands separated, three decimals, an interval in brackets, a dash for nothing."""
    if isinstance(value, Interval):
        if math.isnan(value.low):
            return show(value.value, decimals)
        return f"{show(value.value, decimals)} [{show(value.low, decimals)}, {show(value.high, decimals)}]"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        rounded = round(value, decimals) + 0.0  # no minus before a zero
        return f"{rounded:,.{decimals}f}".replace("-", "−")
    return f"{value:,}".replace("-", "−") if isinstance(value, int) else value


def short(text: str, length: int = TITLE_LENGTH) -> str:
    """Return untrusted text on one line, without control and direction characters, cut at `length`; or `(empty)`."""
    printable = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not printable:
        return "(empty)"
    return printable if len(printable) <= length else printable[: length - 1].rstrip() + "…"


def drawn(figure: Figure, text: str, caption: str = "") -> Picture:
    """Return a figure as a Picture: an SVG in a `data:` URI, where ids of several figures cannot collide."""
    encoded = base64.b64encode(svg(figure).encode()).decode()
    return Picture(f"data:image/svg+xml;base64,{encoded}", text, caption)


def thumbnail(picture: Image.Image) -> str:
    """Return an RGB picture as a small JPEG in a `data:` URI, without any metadata of the original."""
    small = picture.copy()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_THUMBNAIL_QUALITY, exif=b"")
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def table(headers: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str = "") -> Table:
    """Return a Table from any sequences."""
    return Table(tuple(headers), tuple(tuple(row) for row in rows), caption)
