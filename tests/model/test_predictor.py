"""The served model: missing values, unseen categories, foreign features, and a folder without pickle."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from smp_features.config import AdapterConfig, RegressorConfig, TrainingConfig
from smp_features.errors import FingerprintError, ModelError
from smp_features.model import encoders
from smp_features.model.blocks import Selection
from smp_features.model.digests import digest_of
from smp_features.model.inputs import Inputs
from smp_features.model.predictor import Predictor
from smp_features.training.nested import Division, Nest
from smp_features.training.regressor import fit_regressor

N, WIDTH = 150, 8
FINGERPRINTS = {"clip_image_extractor": "c1"}
INPUTS = Inputs(("event_hour", "user_photo_count"), {"image_embedding": WIDTH}, {"category": ["a", "b"]})


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    there = (rng.random(N) > 0.2).astype(float)
    fame = rng.normal(size=N)
    vectors = (rng.normal(size=(N, WIDTH)) * there[:, None]).astype(np.float32)
    return {
        "image_embedding": vectors,
        "has_image_embedding": there,
        "event_hour": rng.integers(0, 24, N).astype(float),
        "user_photo_count": np.where(rng.random(N) > 0.1, fame, np.nan),
        "category": rng.integers(-1, 2, N),
        "popularity": 6 + fame + vectors[:, 0],
        "fold": np.arange(N) % 3,
        "user": np.arange(N),
        "row_id": np.arange(N),
    }


@pytest.fixture(scope="module")
def model(rows) -> Predictor:
    config = TrainingConfig(regressor=RegressorConfig(pca_components=3, adapted_components=2))
    chunk = {name: rows[name] for name in ("image_embedding", "has_image_embedding")} | {"position": np.arange(N)}
    nest = Nest(rows, lambda columns: lambda: iter([chunk]), config)
    everyone = Division("all", np.ones(N, bool), np.zeros(N, bool))
    return nest.predictor(INPUTS, everyone, nest.fit(INPUTS, everyone), FINGERPRINTS)


def frame_of(rows: dict[str, np.ndarray]) -> pd.DataFrame:
    there = rows["has_image_embedding"] == 1
    return pd.DataFrame(
        {
            "event_hour": rows["event_hour"],
            "user_photo_count": rows["user_photo_count"],
            "category": [None if code < 0 else "ab"[code] for code in rows["category"]],
            "image_embedding": [
                list(v) if has else None for v, has in zip(rows["image_embedding"], there, strict=True)
            ],
            "clip_image_extractor": "c1",
        }
    )


def test_a_frame_of_post_features_scores_as_the_snapshot_does(model, rows):
    assert np.array_equal(model.predict(frame_of(rows)), model.predict_rows(rows))


def test_a_saved_model_predicts_the_same(model, rows, tmp_path):
    model.save(tmp_path / "model")
    loaded = Predictor.load(tmp_path / "model")
    assert np.array_equal(loaded.predict(frame_of(rows)), model.predict_rows(rows))
    boosters = {f"{member.name}.txt" for member in model.regressor.members}
    assert {path.name for path in (tmp_path / "model").iterdir()} == boosters | {
        "model.json",
        "encoders.safetensors",
        "adapters.safetensors",
        "manifest.json",
    }


def test_a_file_that_was_changed_is_refused_before_any_library_reads_it(model, tmp_path, monkeypatch):
    model.save(tmp_path / "model")
    pristine = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    assert len(pristine) >= 5
    for name, content in pristine.items():
        for changed in (content[: len(content) // 2], content.replace(b"1", b"2"), b""):
            (tmp_path / "model" / name).write_bytes(changed)
            with monkeypatch.context() as unread, pytest.raises(ModelError, match=f"{name} of the model") as raised:
                if name != "manifest.json":
                    unread.setattr("lightgbm.Booster", lambda **_: pytest.fail("a booster was read"))
                Predictor.load(tmp_path / "model", digest_of(pristine["manifest.json"]))
            assert "\n" not in str(raised.value)
        (tmp_path / "model" / name).unlink()
        with pytest.raises(ModelError):
            Predictor.load(tmp_path / "model")
        (tmp_path / "model" / name).write_bytes(content)
    assert Predictor.load(tmp_path / "model").inputs.columns == model.inputs.columns


def test_a_row_scores_the_same_whatever_rows_come_with_it(model, rows):
    frame = frame_of(rows)
    whole = model.predict(frame)
    for size in (1, 7):
        parts = [model.predict(frame.iloc[start : start + size]) for start in range(0, N, size)]
        assert np.array_equal(np.concatenate(parts), whole)


def test_missing_and_unseen_values_give_a_prediction_in_the_label_range(model):
    frame = pd.DataFrame(
        {
            "event_hour": [None, 3.0],
            "user_photo_count": [np.nan, None],
            "category": ["never seen", None],
            "image_embedding": [None, float("nan")],
            "clip_image_extractor": "c1",
        }
    )
    found = model.predict(frame)
    assert np.isfinite(found).all() and (found >= model.regressor.low).all() and (found <= model.regressor.high).all()


def test_an_unseen_category_counts_as_missing():
    encoded = INPUTS.encode(
        pd.DataFrame(
            {
                "event_hour": [1.0] * 4,
                "user_photo_count": [1.0] * 4,
                "category": ["b", "x", None, "a"],
                "image_embedding": [None] * 4,
            }
        )
    )
    assert encoded["category"].tolist() == [1, -1, -1, 0]
    assert encoded["has_image_embedding"].tolist() == [0] * 4


def test_features_of_other_models_are_refused(model, rows):
    with pytest.raises(FingerprintError, match=r"clip_image_extractor c1.*made by c2"):
        model.predict(frame_of(rows).assign(clip_image_extractor="c2"))
    with pytest.raises(FingerprintError, match="lack the column"):
        model.predict(frame_of(rows).drop(columns="clip_image_extractor"))


def test_vectors_of_another_width_are_refused(model, rows):
    frame = frame_of(rows)
    frame["image_embedding"] = [[0.0] * (WIDTH + 1)] * N
    with pytest.raises(ModelError, match="image_embedding"):
        model.predict(frame)


def test_a_column_that_is_left_out_is_null(model, rows):
    frame = frame_of(rows)
    for name in INPUTS.columns:
        left_out = model.predict(frame.drop(columns=name))
        assert np.array_equal(left_out, model.predict(frame.assign(**{name: None}))), name
        assert not np.array_equal(left_out, model.predict(frame)), f"{name} decides nothing here"
    assert np.ptp(model.predict(frame[["event_hour", "clip_image_extractor"]])) >= 0
    with pytest.raises(ModelError, match=r"None of the model's 4 columns is there"):
        model.predict(frame[["clip_image_extractor"]])


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("image_embedding", [np.nan] + [0.0] * (WIDTH - 1), "row 3: a vector with NaN or infinity"),
        ("image_embedding", [0.0] * (WIDTH - 1) + [-np.inf], "row 3: a vector with NaN or infinity"),
        ("image_embedding", [1e300] * WIDTH, "row 3: a vector with NaN or infinity"),
        ("image_embedding", ["a"] * WIDTH, "row 3: a vector that holds something else than numbers"),
        ("image_embedding", [0.0] * (WIDTH + 1), f"row 3: a vector of {WIDTH + 1} numbers where {WIDTH} are expected"),
        ("event_hour", "noon", "event_hour holds something else than numbers"),
        ("category", ["a"], "category holds something else than text"),
    ],
)
def test_what_a_column_cannot_hold_is_refused_in_one_line(model, rows, column, value, said):
    frame = frame_of(rows)
    frame[column] = [value if row == 3 else given for row, given in enumerate(frame[column])]
    with pytest.raises(ModelError) as raised, np.errstate(over="ignore"):
        model.predict(frame)
    assert said in str(raised.value) and column in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("buckets", [[9], [-2], [0.5, "x"], [65_536], [float("nan")]])
def test_buckets_that_do_not_exist_are_refused(buckets):
    inputs = Inputs(("event_hour",), {}, {}, buckets={"tag_buckets": 9})
    good = pd.DataFrame({"event_hour": [1.0] * 3, "tag_buckets": [[0, 8], [], None]})
    assert inputs.encode(good)["tag_buckets"][:, :2].tolist() == [[0, 8], [-1, -1], [-1, -1]]
    with pytest.raises(ModelError, match="tag_buckets holds"):
        inputs.encode(good.assign(tag_buckets=[[0, 8], buckets, None]))


def test_no_rows_give_no_predictions(model, rows):
    assert model.predict(frame_of(rows).iloc[:0]).shape == (0,)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="not a model"):
        Predictor.load(tmp_path)


def test_projections_are_those_of_sklearn_on_the_rows_with_a_vector(rows):
    config = RegressorConfig(rounds=3, pca_components=3)
    fitted = fit_regressor(INPUTS, Selection.all(rows), rows["popularity"], rows["fold"], config, 1)
    there = rows["has_image_embedding"] == 1
    expected = PCA(3, svd_solver="full").fit_transform(rows["image_embedding"][there].astype(float))
    made = encoders.matrix(INPUTS, fitted.encoders, rows, None, None)[:, -3:]
    assert np.allclose(np.abs(made[there]), np.abs(expected), atol=2e-6)
    assert (made[~there] == 0).all()


def test_predictions_are_clipped_to_the_labels_seen(rows):
    fitted = fit_regressor(
        INPUTS, Selection.all(rows), rows["popularity"], rows["fold"], RegressorConfig(rounds=300), 1
    )
    far = {name: values.copy() for name, values in rows.items()}
    found = fitted.predict(far, None, None)
    assert found.min() >= rows["popularity"].min() and found.max() <= rows["popularity"].max()


def test_a_model_whose_adapters_tell_intervals_apart_is_saved_whole(rows, tmp_path):
    config = TrainingConfig(
        adapter=AdapterConfig(loss="intervals"), regressor=RegressorConfig(pca_components=3, adapted_components=2)
    )
    chunk = {name: rows[name] for name in ("image_embedding", "has_image_embedding")} | {"position": np.arange(N)}
    nest = Nest(rows, lambda columns: lambda: iter([chunk]), config)
    everyone = Division("all", np.ones(N, bool), np.zeros(N, bool))
    made = nest.predictor(INPUTS, everyone, nest.fit(INPUTS, everyone), FINGERPRINTS)
    made.save(tmp_path / "model")
    loaded = Predictor.load(tmp_path / "model")
    assert loaded.adapters.weights["target.centres"].shape == (3, 14)
    assert np.array_equal(loaded.adapters.mean_forward(rows)[1], made.adapters.mean_forward(rows)[1])
    assert np.array_equal(loaded.predict(frame_of(rows)), made.predict_rows(rows))
