"""The notebooks are committed without outputs, and run from top to bottom on a lakehouse."""

from __future__ import annotations

from datetime import datetime

import nbformat
import pytest
from notebook_runs import FOLDER, executed, pictures_in

NOW = datetime(2026, 1, 2, 3, 4, 5)
EXTRACTORS = ("caption", "clip_image", "clip_text", "perplexity")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_committed_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def _fill(lakehouse) -> None:
    base = {
        "uid": "u", "split": "train", "event_ts": NOW, "known_at": NOW, "computed_at": NOW, "image_status": "ok",
        "title_key": "k", "tags": "", "source_row": "train:1", "row_hash": "h", "inputs_key": "i", "features_key": "f",
        "time_rules": "strict", "title": "a red kite", "caption": "a kite over a beach", "title_log_perplexity": 3.0,
        **dict.fromkeys(("caption_title_similarity", "image_title_similarity", "image_caption_similarity"), 0.5),
        **{f"{name}_extractor": f"{name}-f1" for name in EXTRACTORS},
    }  # fmt: skip
    pids = [f"p{number}" for number in range(12)]
    lakehouse.append("posts", [base | {"pid": pid} for pid in pids])
    lakehouse.append("labels", [{"pid": pid, "popularity": 2.5 + n, "known_at": NOW} for n, pid in enumerate(pids)])
    lakehouse.append("post_features", [base | {"pid": pid} for pid in pids])
    lakehouse.append(
        "extractors",
        [
            {"extractor": f"{name}-f1", "name": name, "description": '{"model": "tiny"}', "first_used_at": NOW}
            for name in EXTRACTORS
        ],
    )
    predicted = {"model": "m", "model_version": "1", "features_key": "f", "scored_at": NOW}
    lakehouse.append("predictions", [predicted | {"pid": "p3", "prediction": 6.5}])


@pytest.mark.slow
def test_the_tour_runs_on_a_lakehouse_and_draws_its_figures(lakehouse, tmp_path, monkeypatch):
    _fill(lakehouse)
    outputs = executed("tour.ipynb", lakehouse.config.root, tmp_path, monkeypatch)
    assert len(pictures_in(outputs)) == 2
    shown = "\n".join(output.data.get("text/plain", "") for output in outputs if "data" in output)
    assert "a kite over a beach" in shown
    assert "caption-f1" in shown
    assert "6.5" in shown
