"""A model that the driver has and its workers do not see is copied through the root, or named as missing."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from smp_features.extraction import runner
from smp_features.extraction.runner import ExtractionFailed
from smp_features.extractors.model_digests import digest_folder
from smp_features.extractors.zoo import ZOO

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    """A model that no package bundles; what workers fetch of it goes with the test."""
    copy = shutil.copytree(ZOO["language"], tmp_path / "model")
    (copy / "added.txt").write_text(str(tmp_path))
    fetched = Path(tempfile.gettempdir(), f"smp-models-{os.getuid()}", digest_folder(copy))
    yield copy
    shutil.rmtree(fetched, ignore_errors=True)
    fetched.with_name(fetched.name + ".lock").unlink(missing_ok=True)


def _as_if_only_the_driver_had(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = runner.compute_missing

    def elsewhere(*arguments):
        folder.rename(folder.with_name("gone"))
        compute(*arguments)

    monkeypatch.setattr(runner, "compute_missing", elsewhere)


def test_workers_fetch_a_model_that_was_shipped_and_compute_with_it(bench, folder, monkeypatch):
    bench.add_model("language", id=str(folder))
    bench.post_titles("a red kite", "a blue kite")
    bench.configure(ship_models=True)
    _as_if_only_the_driver_had(folder, monkeypatch)
    assert bench.extract("perplexity")["perplexity"].ok == 2
    assert bench.lakehouse.files.has_folder(f"models/{digest_folder(folder.with_name('gone'))}")


def test_a_worker_that_finds_its_model_nowhere_names_the_settings(bench, folder, monkeypatch):
    bench.add_model("language", id=str(folder))
    bench.post_titles("a red kite", "a blue kite")
    _as_if_only_the_driver_had(folder, monkeypatch)
    with pytest.raises(ExtractionFailed, match=r"models\.language\.id.*extraction\.ship_models: true") as caught:
        bench.extract("perplexity")
    assert caught.value.exit_status == 1
    assert bench.lakehouse.files.list("models") == []
