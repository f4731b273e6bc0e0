"""A worker finds its model by its files' digest, wherever it can read them."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from smp_features.errors import ModelError
from smp_features.extractors.base import Extractor
from smp_features.extractors.model_digests import digest_folder
from smp_features.extractors.model_files import find_model
from smp_features.extractors.model_places import ModelPlaces, put_model
from smp_features.extractors.perplexity import PerplexityExtractor
from smp_features.extractors.zoo import ZOO
from smp_features.lake.files import Store, open_store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A root's store, and a temporary folder of this test's own for what is fetched from it."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return open_store(str(tmp_path / "root"))


@pytest.fixture
def folder(gpt2_folder: Path, tmp_path: Path) -> Path:
    """The driver's copy of a model, which may go."""
    return shutil.copytree(gpt2_folder, tmp_path / "driver" / "gpt2")


def on_the_driver(folder: Path, places: ModelPlaces) -> PerplexityExtractor:
    return PerplexityExtractor(find_model("models.language.id", str(folder), None)).pinned(places)


def as_a_worker(*extractors: Extractor) -> list[str]:
    """Load extractors in a process that has nothing of this one but the pickle; return what came of each."""
    script = """
import pickle, sys
from smp_features.errors import ModelError
for extractor in pickle.load(sys.stdin.buffer):
    try:
        model = extractor.load("cpu")
        print(extractor.fingerprint, model.run([model.prepare("a red dog")[0]])["log_perplexity"][0])
    except ModelError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(extractors), capture_output=True, check=True
    )
    return done.stdout.decode().splitlines()


@pytest.mark.slow
def test_a_worker_without_the_drivers_path_loads_the_model_from_a_configured_folder_or_the_root(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere / "another-name")
    placed = on_the_driver(folder, ModelPlaces((str(elsewhere),)))
    shipped = on_the_driver(folder, ModelPlaces((), store))
    shipped.ship()
    lost = on_the_driver(folder, ModelPlaces())
    model = lost.load("cpu")
    expected = model.run([model.prepare("a red dog")[0]])["log_perplexity"][0]
    fingerprint = lost.fingerprint
    folder.rename(tmp_path / "driver" / "gone")
    *loaded, refused = as_a_worker(placed, shipped, lost)
    for said in loaded:
        assert said.split()[0] == fingerprint
        assert float(said.split()[1]) == pytest.approx(expected)
    for words in ("models.language.id", str(folder), "extraction.model_folders", "extraction.ship_models: true"):
        assert words in refused


def test_only_a_folder_with_the_very_same_files_is_taken(folder: Path, tmp_path: Path) -> None:
    places = tmp_path / "places"
    extractor = on_the_driver(folder, ModelPlaces((str(places), str(tmp_path / "absent"))))
    for name in ("a-same-size", "b-other-size"):
        shutil.copytree(folder, places / name)
    weights = places / "a-same-size" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (places / "b-other-size" / "added.json").write_text("{}")
    (places / "c-file").touch()
    moved = tmp_path / "moved"
    folder.rename(moved)
    with pytest.raises(ModelError, match="This machine has no folder with the files"):
        extractor.files.locate()
    shutil.copytree(moved, places / "d-right")
    assert extractor.files.locate() == places / "d-right"


def test_a_bundled_model_is_found_in_the_package_and_never_copied_to_the_root(store: Store, tmp_path: Path) -> None:
    copy = shutil.copytree(ZOO["language"], tmp_path / "site-packages-of-the-driver")
    extractor = on_the_driver(copy, ModelPlaces((), store))
    extractor.ship()
    assert store.list("models") == []
    shutil.rmtree(copy)
    assert extractor.files.locate() == ZOO["language"]


def test_a_model_travels_without_what_is_never_read_and_is_fetched_once(folder: Path, store: Store) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / ".git").mkdir()
    (folder / ".git" / "config.json").write_text("{}")
    extractor = on_the_driver(folder, ModelPlaces((), store))
    digest = digest_folder(folder)
    extractor.ship()
    put = store.list("models")
    assert {entry.name.removeprefix(f"models/{digest}/") for entry in put if "/" + digest + "/" in entry.name} == {
        path.name for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".txt", ".jinja")
    }
    extractor.ship()
    assert store.list("models") == put  # with the same times: not put again
    shutil.rmtree(folder)
    fetched = extractor.files.locate()
    assert digest_folder(fetched) == digest
    store.delete_prefix("models")
    store.delete(f"models/{digest}.json")
    assert extractor.files.locate() == fetched


def test_a_model_that_was_damaged_where_it_was_fetched_to_is_fetched_again(folder: Path, store: Store) -> None:
    extractor = on_the_driver(folder, ModelPlaces((), store))
    extractor.ship()
    shutil.rmtree(folder)
    fetched = extractor.files.locate()
    (fetched / "config.json").write_text("{}")
    assert extractor.files.locate() == fetched
    assert digest_folder(fetched) == extractor.files.digest
    # What another process left half fetched is no model.
    fetched.rename(fetched.with_name(fetched.name + ".part"))
    (fetched.with_name(fetched.name + ".part") / "config.json").unlink()
    assert digest_folder(extractor.files.locate()) == extractor.files.digest


def test_a_model_damaged_in_the_root_is_not_used(folder: Path, store: Store) -> None:
    put_model(store, str(folder), digest := digest_folder(folder))
    extractor = on_the_driver(folder, ModelPlaces((), store))
    config = store.get_text(f"models/{digest}/config.json")
    store.put(f"models/{digest}/config.json", config.replace('"', "'", 1))
    shutil.rmtree(folder)
    with pytest.raises(ModelError, match="This machine has no folder with the files"):
        extractor.files.locate()
