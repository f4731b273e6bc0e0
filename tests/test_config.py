"""Configuration: files extend files, unknown keys are refused with the nearest known one, YAML is read safely."""

from __future__ import annotations

from pathlib import Path

import pytest

from smp_features.config import Config, load_config
from smp_features.errors import ConfigError

CONF = Path(__file__).parents[1] / "conf"


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_committed_configuration_loads(path):
    assert load_config(path).registry.model == "smp_popularity"


def test_a_file_extends_another_section_by_section(tmp_path):
    (tmp_path / "base.yaml").write_text("root: a\ntraining: {seed: 1, folds: 4}\n")
    (tmp_path / "top.yaml").write_text("extends: base.yaml\ntraining: {seed: 2}\n")
    config = load_config(tmp_path / "top.yaml", ["training.adapter.epochs=3"], root="b")
    assert (config.root, config.training.seed, config.training.folds) == ("b", 2, 4)
    assert config.training.adapter.epochs == 3


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sorce.path=x", "Unknown configuration key 'sorce'. Did you mean 'source'?"),
        ("source.pth=x", "Unknown configuration key 'source.pth'. Did you mean 'path'?"),
        ("source.known_at.user_aditional=null", "Unknown configuration key 'source.known_at.user_aditional'. Did you"),
        ("source.limit=0", "Configuration key 'source.limit'"),
        ("training.adapter.epoch=3", "Unknown configuration key 'training.adapter.epoch'. Did you mean 'epochs'?"),
        ("models.clip.idd=x", "Unknown configuration key 'models.clip.idd'. Did you mean 'id'?"),
        ("models.clip.dtype=float8", "Configuration key 'models.clip.dtype': input should be 'float32'"),
        ("models.clip=x", "Configuration key 'models.clip': input should be keys and values."),
        ("models.captoin.id=x", "'models.captoin': a model beside caption, clip, language must say its kind. Did you"),
        ("models.more.kind=clp", "models.more.kind: there is no kind 'clp'. Did you mean 'clip'?"),
        ("models.My-Model.kind=clip", "'models.My-Model': a model's name becomes part of column names."),
        ("training.seed=-1", "Configuration key 'training.seed'"),
        ("training.folds=two", "Configuration key 'training.folds'"),
        ("report.perplexity_quantile=1", "Configuration key 'report.perplexity_quantile'"),
        ("training", "expected key.path=value"),
        ("root.x.y=1", "'root' is a value, not a section"),
        ("schema=a;b", "Configuration key 'schema'"),
    ],
)
def test_a_wrong_override_is_one_clear_line(override, said):
    with pytest.raises(ConfigError) as caught:
        load_config(CONF / "demo.yaml", [override])
    assert said in str(caught.value).replace(f" in {CONF / 'demo.yaml'}", "")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


def test_yaml_that_would_run_code_is_refused(tmp_path):
    marker = tmp_path / "ran"
    path = tmp_path / "evil.yaml"
    path.write_text(f"root: !!python/object/apply:os.mkdir ['{marker}']\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(path)
    assert not marker.exists()


def test_a_file_that_extends_itself_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(ConfigError, match="extends itself"):
        load_config(tmp_path / "a.yaml")


def test_a_configuration_cannot_be_changed():
    with pytest.raises(Exception, match="frozen"):
        load_config().root = "elsewhere"


def test_every_model_has_the_settings_of_its_kind_and_the_roles_come_first():
    models = load_config(None, ["models.more={kind: clip, id: a}", "models.language.id=b"]).models
    assert list(models) == ["caption", "clip", "language", "more"]
    assert [(each.kind, each.id) for each in models.values()] == [
        ("caption", "zoo:caption"),
        ("clip", "zoo:clip"),
        ("perplexity", "b"),
        ("clip", "a"),
    ]
    assert (models["more"].max_batch, models["language"].max_tokens) == (64, 256)


def test_a_configuration_written_down_is_read_back_the_same():
    config = load_config(None, ["models.more={kind: clip, id: a, dtype: bfloat16}"])
    assert Config.model_validate(config.model_dump(by_alias=True)) == config
