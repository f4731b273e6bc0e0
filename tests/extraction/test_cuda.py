"""A real GPU: the extractors compute there what they compute on a CPU, and its failures are what the pipeline expects.

`make test-gpu` runs these; without a GPU they fail, and no other target selects them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from smp_features.config import load_config
from smp_features.errors import DeviceError
from smp_features.extraction.pipeline import Pipeline, WorkerUnusable
from smp_features.extraction.watchdog import Notes, Watch, left_behind
from smp_features.extraction.worker import EXIT_UNUSABLE
from smp_features.extractors import build_extractors

pytestmark = pytest.mark.gpu

GPU = "cuda:0"
TITLES = [
    "a red ball on the beach",
    "Sunset over the bay!",
    "x",
    "two dogs",
    "#nofilter #sky 日本",
    "a b c d e f g h i j",
]
SCRIPT = Path(__file__).parents[2] / "conf" / "discover_gpus.sh"


@pytest.fixture(autouse=True)
def _needs_cuda():
    assert torch.cuda.is_available(), "These tests need a GPU that torch can use."


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Encoded pictures of several sizes."""
    random, folder, found = np.random.default_rng(5), tmp_path_factory.mktemp("pictures"), []
    for number in range(12):
        rough = random.integers(0, 256, (4 + number, 9, 3), dtype=np.uint8)
        path = folder / f"{number}.jpg"
        Image.fromarray(rough).resize((90 + 40 * number, 200)).save(path)
        found.append(path.read_bytes())
    return found


def extractors(dtype="float32", **batches):
    """Return the demo models' extractors."""
    sections = ("caption", "clip", "language")
    settings = [f"models.{section}.id=zoo:{section}" for section in sections]
    settings += [f"models.{section}.dtype={dtype}" for section in sections]
    settings += [f"models.{section}.max_batch={size}" for section, size in batches.items()]
    return build_extractors(load_config(None, settings).models)


def columns(extractor, device, contents):
    model = extractor.load(device)
    return model.run([model.prepare(content)[0] for content in contents])


@pytest.mark.parametrize("name", ["caption", "clip_image", "clip_text", "perplexity"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_gpu_computes_what_a_cpu_does(pictures, name, dtype):
    contents = pictures if name in ("caption", "clip_image") else TITLES
    expected = columns(extractors()[name], "cpu", contents)
    found = columns(extractors(dtype)[name], GPU, contents)
    within = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}[dtype]
    if name == "caption":
        equal = sum(one == two for one, two in zip(found["caption"], expected["caption"], strict=True))
        assert equal >= (len(contents) if dtype == "float32" else len(contents) * 2 / 3)
    elif name == "perplexity":
        np.testing.assert_allclose(found["log_perplexity"], expected["log_perplexity"], rtol=within)
        np.testing.assert_array_equal(found["token_count"], expected["token_count"])
    else:
        assert found["embedding"].dtype == np.float32
        np.testing.assert_allclose(found["embedding"], expected["embedding"], atol=within)


def test_a_gpu_that_is_not_there_is_said_so():
    missing = torch.cuda.device_count()
    with pytest.raises(DeviceError, match=f"torch sees {missing} GPUs"):
        extractors()["clip_text"].load(f"cuda:{missing}")


def test_the_discovery_script_names_this_machines_gpus():
    found = json.loads(subprocess.run([str(SCRIPT)], capture_output=True, text=True, check=True).stdout)
    assert found == {"name": "gpu", "addresses": [str(number) for number in range(torch.cuda.device_count())]}


def batch_of(contents):
    keys = [f"{number:064d}" for number in range(len(contents))]
    return pa.RecordBatch.from_arrays([pa.array(keys), pa.array(contents)], ["key", "content"])


def test_micro_batches_shrink_until_they_fit_on_the_device(tmp_path, pictures):
    extractor = extractors(clip=4096)["clip_image"]
    model = extractor.load(GPU)
    contents = [picture + bytes([number % 256, number // 256]) for number in range(171) for picture in pictures]
    alone = model.run([model.prepare(pictures[3])[0]])["embedding"][0]
    sizes, run = [], model.run

    def listed(items):
        sizes.append(len(items))
        return run(items)

    model.run = listed
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 160 * 2**20) / total)
    try:
        with Watch(Notes(str(tmp_path), 0, 1), 60) as watch:
            rows = pa.Table.from_batches(
                Pipeline(extractor, "key", lambda: (model, 1), watch).run([batch_of(contents)])
            )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    *computed, _ = rows.to_pylist()
    assert sizes[0] == len(contents)
    assert min(sizes) < len(contents)
    assert {row["status"] for row in computed} == {"ok"}
    assert sorted(row["key"] for row in computed) == sorted(batch_of(contents)["key"].to_pylist())
    third = next(row for row in computed if row["key"] == f"{3:064d}")
    np.testing.assert_allclose(third["embedding"], alone, atol=1e-4)


def test_a_device_failure_ends_the_worker_and_leaves_its_inputs_noted(tmp_path):
    # In a process of its own: its GPU refuses all further work.
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == EXIT_UNUSABLE, done.stderr[-2000:]
    noted = left_behind(str(tmp_path), 0)
    assert {noted.of(f"{number:064d}") for number in range(len(TITLES))} == {"worker_lost"}


def _fail(folder: str) -> None:
    extractor = extractors()["clip_text"]
    model = extractor.load(GPU)
    run = model.run

    def beyond_the_vocabulary(items):
        return run([np.full_like(item, 10**6) for item in items])

    model.run = beyond_the_vocabulary
    watch = Watch(Notes(folder, 0, 1), 60)
    watch.__enter__()
    try:
        list(Pipeline(extractor, "key", lambda: (model, 1), watch).run([batch_of(TITLES)]))
    except WorkerUnusable:
        sys.exit(EXIT_UNUSABLE)  # as `worker.Task` ends its process, the notes staying


if __name__ == "__main__":
    _fail(sys.argv[1])
