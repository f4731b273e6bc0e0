"""The extractor protocol: a small picklable description that loads into a model which prepares and runs.

A package brings a further kind of extractor by a subclass of `Extractor` and an entry point in the group
`smp_features.extractors`, whose name is what users write as `kind` in the configuration's section `models`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

import numpy as np
import pyarrow as pa

from smp_features.catalogue import Feature, Kind, Lookup
from smp_features.config import ModelSettings
from smp_features.errors import DeviceError
from smp_features.extractors.model_files import ModelFiles
from smp_features.extractors.model_places import NOWHERE, ModelPlaces, put_model
from smp_features.refusals import InputRefused

if TYPE_CHECKING:
    import torch

__all__ = [
    "Columns",
    "Extractor",
    "InputRefused",
    "LoadedModel",
    "ModelSettings",
    "OutputColumn",
    "open_device",
    "quiet_libraries",
]

Columns = dict[str, np.ndarray | list[str]]
"""What a model returns for a micro-batch: one array (or list of strings) per output column, n rows each."""

FINGERPRINT_DIGITS = 16

NAMES = {"language": "perplexity"}
"""What an extractor is called where that is not the name of its model: by what tables and runs have of it."""

DEFAULT_BATCH = 32
"""Inputs per micro-batch of an extractor that has no setting `max_batch`."""

TITLE, MADE = "title", "captions"
"""The texts of a post: its title, and every text that extractors made of its contents."""


@dataclass(frozen=True)
class OutputColumn:
    """A column that an extractor fills.

    Attributes:
        name: The column's name in its feature table.
        arrow_type: The type of its values.
        comment: Unit, shape, dtype and the meaning of null, for the table's column comment.
    """

    name: str
    arrow_type: pa.DataType
    comment: str


class LoadedModel(Protocol):
    """A model in memory, on one device. Weights never change after loading; `run` is called by one thread at a time."""

    def prepare(self, raw: bytes | str) -> tuple[Any, float]:
        """Decode or tokenise one input; thread-safe, and where all the waiting is.

        Args:
            raw: Image bytes or text, as the extractor's `reads` says.

        Returns:
            The item for `run`, and its cost in the unit of `max_cost`. A micro-batch costs its row count times its
            dearest row, because shorter rows are padded.

        Raises:
            InputRefused: The input can never be used; carries the permanent status.
        """
        ...

    def run(self, items: Sequence[Any]) -> Columns:
        """Compute a micro-batch; each row equals what it would be alone, to 1e-4 in float32.

        Args:
            items: Prepared items, at least one.

        Returns:
            The output columns, row i for item i. Non-finite numbers are returned as computed; refusing them is the
            caller's part.
        """
        ...


@dataclass(frozen=True)
class Extractor(ABC):
    """Everything that decides one kind of feature, small enough to be pickled to every worker.

    Its fields are its settings: those decide the fingerprint, all but `model` and `max_batch`. Making one touches no
    disk and imports no torch; the files of its models are looked for when they are first asked for.

    Attributes:
        model: The name of its entry in the configuration's section `models`.
        kind: What it computes, as its fingerprint has it.
        reads: What `prepare` takes: image bytes or text.
        version: Raised when this package's own part of the computation changes its results.
        table: The table that its rows go to. Extractors may share one, when their columns are the same.
        noun: What one row of it is called.
        table_comment: What one row of the table is; by default, that noun per content and extractor.
        constraints: What must hold of its rows, name to SQL condition; None for what follows from the outputs: a row
            that is `ok` has its texts, and numbers and vectors without NaN.
        texts: Of an extractor that reads text, which texts of a post it is wanted for: `title`, or also `captions`,
            which is every text that extractors made.
        makes_text: The output whose values are texts, which text extractors read in turn; None for no output.
        Settings: What users may set, beside `kind`, in its entry of the section `models`.
    """

    model: str = field(default="", kw_only=True)

    kind: ClassVar[str]
    reads: ClassVar[Literal["image", "text"]]
    version: ClassVar[int]
    table: ClassVar[str]
    noun: ClassVar[str] = "row"
    table_comment: ClassVar[str] = ""
    constraints: ClassVar[Mapping[str, str] | None] = None
    texts: ClassVar[tuple[str, ...]] = (TITLE,)
    makes_text: ClassVar[str | None] = None
    Settings: ClassVar[type[ModelSettings]] = ModelSettings

    @classmethod
    def build(cls, model: str, settings: ModelSettings) -> tuple[Extractor, ...]:
        """Return the extractors of an entry of the section `models`; by default one, whose fields are the settings.

        Args:
            model: The entry's name.
            settings: Its `Settings`.
        """
        return (cls(model=model, **settings.model_dump(exclude={"kind"})),)

    @property
    def name(self) -> str:
        """What it is called on the command line, in `runs` and in `extractors`; no two of a configuration share it."""
        return NAMES.get(self.model, self.model)

    @property
    @abstractmethod
    def outputs(self) -> tuple[OutputColumn, ...]:
        """The columns that `run` returns, in table order."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """The columns of `post_features` that come of it: by default every number and vector, of a post's own content.

        They are called `<name>_<column>` and switched together, as the group that has the model's name.
        """
        content = "image" if self.reads == "image" else TITLE
        return tuple(
            Feature(
                f"{self.name}_{column.name}",
                self.model,
                kind,
                column.comment,
                picture=self.reads == "image",
                made=Lookup(self.name, content, column.name),
            )
            for column in self.outputs
            if (kind := _feature_kind(column.arrow_type)) is not None
        )

    @property
    def max_cost(self) -> float:
        """The most that a micro-batch may cost; a single row that costs more runs alone."""
        return float(getattr(self, "max_batch", DEFAULT_BATCH))

    def identity(self) -> dict[str, Any]:
        """Everything that decides the output, as JSON values: digests, preprocessing, generation, dtype.

        Batch sizes, devices, threads, library versions, the model's name and its place are not in it. By default it is
        the kind, the version and every setting.

        Raises:
            ModelError: The model is not there, or its configuration cannot be read.
        """
        settings: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, ModelFiles):
                settings[each.name] = value.identity()
            elif each.name not in ("model", "max_batch"):
                settings[each.name] = value
        return {"extractor": self.kind, "version": self.version, **settings}

    def description(self) -> dict[str, Any]:
        """Return what people are told of a fingerprint: what decides the output, and what the model is called here.

        Raises:
            ModelError: As `identity`.
        """
        pinned = self.pinned()
        labels: dict[str, Any] = {}
        for files in pinned._files().values():
            labels |= files.labels()
        return {**labels, **pinned.identity()}

    def check(self) -> None:
        """Prove on the driver, before anything is written, that workers will be able to load the model.

        Raises:
            ModelError: Missing, the wrong architecture, pickled weights, an unpinned revision, another digest.
        """
        self.load("cpu")

    @abstractmethod
    def load(self, device: str, threads: int | None = None) -> LoadedModel:
        """Load the model.

        Args:
            device: A torch device such as `cpu` or `cuda:0`.
            threads: Threads for torch in this process; null leaves its setting alone.

        Raises:
            ModelError: The files are not what `check` saw, or do not fit the architecture.
            DeviceError: The device is not there.
        """

    def pinned(self, places: ModelPlaces = NOWHERE) -> Self:
        """Return the same extractor with its model's files found and digested, as workers are given it.

        Args:
            places: Where workers may find the files.

        Raises:
            ModelError: A folder that is not there, or a name that no library knows.
        """
        found: dict[str, Any] = {name: files.pinned(places) for name, files in self._files().items()}
        return replace(self, **found)

    def ship(self) -> None:
        """Put the files of this pinned extractor's model where workers can fetch them, if its places have a store.

        Raises:
            FilesError: The root cannot be written.
        """
        for files in self._files().values():
            if files.folder is not None and files.digest is not None and files.places.store is not None:
                put_model(files.places.store, files.folder, files.digest)

    @property
    def fingerprint(self) -> str:
        """The key of this extractor's rows: 16 hex digits of the SHA-256 of its identity as canonical JSON."""
        return fingerprint_of(self.pinned().identity())

    # -- its place among the tables -----------------------------------------------------------------------------------

    @property
    def stage(self) -> str:
        """Its name in `runs`."""
        return f"extract/{self.name}"

    @property
    def contents(self) -> str:
        """The table of contents it reads, `images` or `texts`."""
        return f"{self.reads}s"

    @property
    def key(self) -> str:
        """The contents' key."""
        return f"{self.reads}_key"

    @property
    def value(self) -> str:
        """The contents' column that it reads."""
        return "bytes" if self.reads == "image" else "text"

    @property
    def reads_made_texts(self) -> bool:
        """Whether texts that extractors made are among its inputs."""
        return self.reads == "text" and MADE in self.texts

    def counted(self, rows: int) -> str:
        """Return a number of its rows in words: `1 caption`, `2,000 captions`."""
        return f"{rows:,} {self.noun if rows == 1 else self.table.replace('_', ' ')}"

    def is_error(self, status: str) -> bool:
        """Whether a permanent status counts towards the error share: an empty title is a fact, not an error."""
        return status != "ok" and not (self.reads == "text" and status == "empty")

    def _files(self) -> dict[str, ModelFiles]:
        return {each.name: value for each in fields(self) if isinstance(value := getattr(self, each.name), ModelFiles)}


def fingerprint_of(identity: dict[str, Any]) -> str:
    """Return the fingerprint of what `Extractor.identity` says."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:FINGERPRINT_DIGITS]


def _feature_kind(kind: pa.DataType) -> Kind | None:
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return "number"
    return "vector" if pa.types.is_list(kind) and pa.types.is_floating(kind.value_type) else None


def open_device(device: str, threads: int | None) -> torch.device:
    """Return the torch device after checking that it exists, and set torch's threads when told to.

    Raises:
        DeviceError: No such device in this process.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    wanted = torch.device(device)
    if wanted.type == "cuda":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (wanted.index or 0) >= there:
            raise DeviceError(
                f"Device '{device}' was asked for, and torch sees {there} GPUs.",
                "Set extraction.device: cpu, or check the cluster's GPU drivers.",
            )
        # float32 means float32: cuDNN would round convolutions to TF32, which moved vectors by 3e-4 on an H200.
        torch.backends.cudnn.allow_tf32 = False
    return wanted


class _FromOpenClip(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return f"{os.sep}open_clip{os.sep}" not in record.pathname


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the progress bars and advice of transformers and open_clip off the terminal while inside.

    What they only warn about and is an error here (missing weights, another activation) is checked by our own code.
    """
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    # open_clip logs through the root logger, whose functions install a handler on stderr where there is none.
    root = logging.getLogger()
    handler, silence = logging.NullHandler(), _FromOpenClip()
    root.addHandler(handler)
    root.addFilter(silence)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
        root.removeFilter(silence)
        root.removeHandler(handler)
