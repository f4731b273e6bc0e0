"""How a picture's pixels are spread over the corners of the colour cube: a kind of extractor, `colour_histogram`."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from smp_features.extractors.base import Extractor, ModelSettings, OutputColumn
from smp_features.images import decode_rgb


class Settings(ModelSettings):
    """Attributes: threshold: a channel from which on counts as bright, 1..255."""

    threshold: int = 128


@dataclass(frozen=True)
class ColourHistogram(Extractor):
    threshold: int = 128

    kind, reads, version, table, noun = "colour_histogram", "image", 1, "colour_histograms", "colour histogram"
    outputs = (OutputColumn("shares", pa.list_(pa.float32()), "(8,) of pixels per corner, sum 1; null unless ok"),)
    Settings = Settings

    def load(self, device, threads=None):
        return Loaded(self.threshold)


@dataclass(frozen=True)
class Loaded:
    threshold: int

    def prepare(self, raw):
        return np.asarray(decode_rgb(raw)) >= self.threshold, 1.0

    def run(self, items):
        corners = [np.bincount((bright @ (4, 2, 1)).ravel(), minlength=8) for bright in items]
        return {"shares": np.stack([counts / counts.sum() for counts in corners]).astype(np.float32)}
