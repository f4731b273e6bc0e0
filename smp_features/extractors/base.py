"""The extractor protocol: a small picklable description that loads into a model which prepares and runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import pyarrow as pa

from smp_features.errors import DeviceError
from smp_features.refusals import InputRefused

if TYPE_CHECKING:
    import torch

__all__ = ["Columns", "Extractor", "InputRefused", "LoadedModel", "OutputColumn", "open_device", "quiet_libraries"]

Columns = dict[str, np.ndarray | list[str]]
"""What a model returns for a micro-batch: one array (or list of strings) per output column, n rows each."""

FINGERPRINT_DIGITS = 16


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

    Attributes:
        name: `caption`, `clip_image`, `clip_text` or `perplexity`.
        reads: What `prepare` takes: image bytes or text.
        version: Raised when this package's own part of the computation changes its results.
    """

    name: ClassVar[str]
    reads: ClassVar[Literal["image", "text"]]
    version: ClassVar[int]

    @property
    @abstractmethod
    def outputs(self) -> tuple[OutputColumn, ...]:
        """The columns that `run` returns, in table order."""

    @property
    @abstractmethod
    def max_cost(self) -> float:
        """The most that a micro-batch may cost; a single row that costs more runs alone."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Everything that decides the output, as JSON values: model, weights, preprocessing, generation, dtype.

        Batch sizes, devices, threads, library versions and the folder's place are not in it.

        Raises:
            ModelError: The model's configuration cannot be read.
        """

    @abstractmethod
    def check(self) -> None:
        """Prove on the driver, before anything is written, that workers will be able to load the model.

        Raises:
            ModelError: Missing, the wrong architecture, pickled weights, an unpinned revision, another digest.
        """

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

    @property
    def fingerprint(self) -> str:
        """The key of this extractor's rows: 16 hex digits of the SHA-256 of the canonical JSON description."""
        canonical = json.dumps(self.description(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:FINGERPRINT_DIGITS]


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
