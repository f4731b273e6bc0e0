"""Figure 5's coordinates: one fold's posts, the same in every panel, clouds kept together, density by hand."""

from __future__ import annotations

import numpy as np
import pytest

from smp_features.analysis.laboratory.tsne import coordinates, density
from smp_features.model.adapter_weights import Adapters

N, WIDTH = 240, 5
CLOUD = np.arange(N) % 3


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    centres = 6 * rng.normal(size=(3, WIDTH))
    found = {name: (centres[CLOUD] + rng.normal(size=(N, WIDTH))).astype(np.float32) for name in COLUMNS}
    found |= {"has_image_embedding": np.ones(N), "has_title_embedding": (np.arange(N) % 7 > 0).astype(float)}
    return found | {"row_id": np.arange(N) * 10, "fold": np.arange(N) // 6 % 3 - 1}


COLUMNS = ("image_embedding", "title_embedding")


def adapters(*columns: str) -> Adapters:
    rng = np.random.default_rng(1)
    weights = {"head.weight": np.zeros((2, WIDTH * len(columns))), "head.bias": np.zeros(2)}
    weights |= {"target.mean": np.zeros(2), "target.scale": np.ones(2)}
    for name in columns:
        weights |= {
            f"{name}.mean": np.zeros((2, WIDTH)),
            f"{name}.scale": np.ones(2),
            f"{name}.weight": rng.normal(size=(2, WIDTH, WIDTH)),
            f"{name}.bias": np.zeros((2, WIDTH)),
        }
    return Adapters("mixture", dict.fromkeys(columns, 0.5), weights)


def test_the_same_posts_of_one_fold_are_in_every_panel_and_clouds_stay_together(rows):
    found = coordinates(rows, adapters(*COLUMNS), rows["fold"] >= 0, rows["fold"], seed=1)
    wanted = np.flatnonzero((rows["fold"] == 0) & (rows["has_title_embedding"] > 0))
    panels = dict(list(found.groupby(["modality", "state"], sort=False)))
    assert list(panels) == [("image", "before"), ("image", "after"), ("text", "before"), ("text", "after")]
    for part in panels.values():
        assert part["row_id"].tolist() == (wanted * 10).tolist()
        assert part["density"].max() == 1 and part["density"].min() > 0
        placed = part[["x", "y", "z"]].to_numpy()
        apart = np.linalg.norm(placed[:, None] - placed[None], axis=2) + np.diag(np.full(len(placed), np.inf))
        assert (CLOUD[wanted][apart.argmin(axis=1)] == CLOUD[wanted]).mean() > 0.9
    again = coordinates(rows, adapters(*COLUMNS), rows["fold"] >= 0, rows["fold"], seed=1)
    assert again.equals(found)


def test_density_is_a_gaussian_kernel_of_scotts_width():
    points = np.random.default_rng(2).normal(size=(40, 3)) @ np.diag([1, 2, 5])
    width = np.cov(points.T) * 40 ** (-2 / 7)
    steps = points[:, None] - points[None]
    kernel = np.exp(-0.5 * np.einsum("ijk,kl,ijl->ij", steps, np.linalg.inv(width), steps)).sum(axis=1)
    assert np.allclose(density(points), kernel / kernel.max())


def test_a_modality_without_shape_is_left_out(rows):
    same = rows | {"title_embedding": np.ones((N, WIDTH), np.float32)}
    found = coordinates(same, adapters(*COLUMNS), rows["fold"] >= 0, rows["fold"], seed=1)
    assert set(found["modality"]) == {"image"}
    few = (rows["fold"] == 0) & (np.arange(N) < 40)
    assert coordinates(rows, adapters(*COLUMNS), few, rows["fold"], seed=1).empty
    assert coordinates(rows, None, few, rows["fold"], seed=1).empty
