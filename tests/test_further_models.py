"""Models beside the three roles, by configuration alone: another CLIP, and a kind that another package brings.

Both go from `smp extract` into `post_features`, the training set, the model and its predictions, and a model that
leaves the configuration takes nothing along.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from colour_histograms import shares_by_pixel

from smp_features import plugins
from smp_features.config import Config, load_config
from smp_features.demo.generate import generate
from smp_features.demo.walkthrough import demo_configuration
from smp_features.errors import FingerprintError
from smp_features.extractors.zoo import ZOO
from smp_features.lake.tables import Lakehouse
from smp_features.stages import run_stage
from smp_features.training.registry import Registry, promote

pytestmark = pytest.mark.slow

POSTS = 120
PACKAGE = Path(__file__).parent / "packages" / "colour_histogram"
QUICK = ["training.folds=3", "training.bootstrap=100", "training.regressor.rounds=40", "training.adapter.epochs=2"]
STAGES = ("ingest", "extract", "features", "training-set", "train", "score")
FURTHER = (
    *("paler_image_embedding", "paler_title_embedding", "paler_image_title_similarity"),
    "colours_shares",
)


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the package of somebody else into a folder, and let this process find it there."""
    source = shutil.copytree(PACKAGE, folder / "source")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*command, str(folder / "site"), str(source)], check=True)
    monkeypatch.syspath_prepend(str(folder / "site"))
    plugins._installed.cache_clear()


def paler(folder: Path) -> Path:
    """Copy the bundled CLIP, with pictures normalised otherwise: the same weights make other vectors."""
    shutil.copytree(ZOO["clip"], folder)
    path = folder / "open_clip_config.json"
    described = json.loads(path.read_text())
    described["preprocess_cfg"]["mean"] = [0.2, 0.2, 0.2]
    path.write_text(json.dumps(described))
    return folder


class Further:
    """A small lake that was made with the bundled models and two more."""

    def __init__(self, spark, folder: Path) -> None:
        self.spark, self.folder = spark, folder
        generate(POSTS, folder / "posts", seed=3)
        clip = paler(folder / "paler")
        self.config = self.configured(
            f"models.paler={{kind: clip, id: {clip}}}", "models.colours.kind=colour_histogram"
        )
        self.lakehouse = Lakehouse(spark, self.config)
        self.summaries = {each.stage: each for each in self.run(self.config, *STAGES)}

    def configured(self, *models: str) -> Config:
        settings = [f"source.path={self.folder / 'posts'}", "registry.gate.share=0.2", *QUICK, *models]
        return load_config(demo_configuration(), settings, str(self.folder / "lake"))

    def run(self, config: Config, *stages: str):
        return [summary for stage in stages for summary in run_stage(self.spark, config, stage)]

    def rows(self, table: str = "post_features"):
        return self.lakehouse.read(table).toPandas().set_index("pid").sort_index()


@pytest.fixture(scope="module")
def further(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("further")
    with pytest.MonkeyPatch.context() as patch:
        installed(folder, patch)
        spark.sparkContext.addPyFile(str(PACKAGE / "colour_histogram.py"))
        yield Further(spark, folder)
    plugins._installed.cache_clear()


def _vectors(further: Further, table: str, extractor: str, column: str) -> dict[str, np.ndarray]:
    fingerprint = further.lakehouse.extractors[extractor].fingerprint
    rows = further.lakehouse.read(table).where(f"extractor = '{fingerprint}' AND status = 'ok'").collect()
    key = "image_key" if "image_key" in rows[0] else "text_key"
    return {row[key]: np.array(row[column], np.float64) for row in rows}


def test_a_second_clip_shares_the_tables_of_the_first_under_its_own_fingerprint(further):
    first = _vectors(further, "image_embeddings", "clip_image", "embedding")
    second = _vectors(further, "image_embeddings", "paler_image", "embedding")
    assert first.keys() == second.keys() and len(first) > POSTS / 2
    assert all(np.abs(first[key] - second[key]).max() > 1e-3 for key in first)
    assert further.summaries["extract/paler_image"].ok == further.summaries["extract/clip_image"].ok


def test_its_similarity_of_picture_and_title_is_a_feature(further):
    posts, rows = further.rows("posts"), further.rows()
    images = _vectors(further, "image_embeddings", "paler_image", "embedding")
    titles = _vectors(further, "text_embeddings", "paler_text", "embedding")
    compared = 0
    for pid, row in rows.iterrows():
        image, title = images.get(posts.loc[pid, "image_key"]), titles.get(posts.loc[pid, "title_key"])
        if image is None or title is None:
            assert np.isnan(row["paler_image_title_similarity"])
        else:
            assert row["paler_image_title_similarity"] == pytest.approx(image @ title, abs=1e-6)
            compared += 1
    assert compared > POSTS / 2
    assert not np.allclose(rows["paler_image_title_similarity"], rows["image_title_similarity"], equal_nan=True)


def test_what_another_package_extracts_is_a_column_of_every_post_with_a_picture(further):
    posts, rows = further.rows("posts"), further.rows()
    pictures = {row["image_key"]: bytes(row["bytes"]) for row in further.lakehouse.read("images").collect()}
    for pid, shares in rows["colours_shares"].items():
        if posts.loc[pid, "image_status"] == "ok":
            expected = shares_by_pixel(pictures[posts.loc[pid, "image_key"]], 128)
            assert shares == pytest.approx(expected, abs=1e-6)
        else:
            assert shares is None


def test_the_model_is_trained_on_them_and_scores_with_them(further):
    trained, rows = further.rows("training_set"), further.rows()
    for name in FURTHER:
        assert name in trained and trained[name].notna().any()
    assert (trained["has_colours_shares"] == rows.loc[trained.index, "colours_shares"].notna()).all()
    champion = Registry(further.config).champion()
    fingerprints = {f"{name}_extractor": each.fingerprint for name, each in further.lakehouse.extractors.items()}
    assert fingerprints.items() <= champion.tags.items() and len(fingerprints) == 7
    results = Registry(further.config).results(champion)
    assert {"paler", "colours"} <= {each["group"] for each in results["importance"]}
    unlabelled = rows.index.difference(trained.index)
    assert sorted(further.rows("predictions").index) == sorted(unlabelled)


def test_a_model_that_leaves_the_configuration_breaks_nothing_and_takes_nothing_along(further):
    before = further.rows()
    config = further.configured()
    further.run(config, "ingest", "features")
    with pytest.raises(FingerprintError, match=r"trained on colours_extractor \w+, and post_features holds nothing"):
        further.run(config, "score")
    further.run(config, "training-set", "train")
    promote(config, max((each.number for each in Registry(config).versions()), key=int))
    assert further.run(config, "score")[0].computed == len(before) - len(further.rows("training_set"))
    after = further.rows()
    kept = [name for name in Lakehouse(further.spark, config).spec("post_features").column_names if name != "pid"]
    gone = [name for name in before if name not in kept]
    assert set(FURTHER) <= set(gone) and set(before) == set(after)
    assert after[gone].isna().all(axis=None)
    same = [name for name in kept if before[name].dtype.kind in "fi"]
    assert np.allclose(before[same], after[same], equal_nan=True)
    assert len(_vectors(further, "image_embeddings", "paler_image", "embedding")) > POSTS / 2
    assert further.lakehouse.read("colour_histograms").count() > 0

    again = further.run(further.config, "features")
    assert again[0].outcome == "done" and further.rows()[list(FURTHER)].notna().any().all()
