"""Configuration: files extend files, unknown keys are refused with the nearest known one, YAML is read safely."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

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
    assert said in str(caught.value).replace(f" in {CONF / 'demo.yaml'}", "").replace(" in --set", "")
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


@pytest.mark.parametrize(
    "value", [".inf", "-.inf", ".nan", "1e400", "1" + "0" * 400, "true", "'7'", "[1]", "{a: 1}", "-1", "1e300"]
)
@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("training.folds", "a whole number from 3 to 100"),
        ("training.adapter.learning_rate", "a number above 0, at most 10"),
        ("source.max_refused_share", "a number from 0 to 1"),
        ("extraction.slots", "a whole number from 1 to 100,000, or null"),
        ("models.clip.max_batch", "a whole number from 1 to 1,000,000"),
    ],
)
def test_a_number_that_is_none_or_out_of_range_is_one_line_with_place_key_and_range(key, allowed, value):
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["models.clip.id=a", f"{key}={value}"])
    said = str(caught.value)
    assert said.startswith(f"Configuration key '{key}' in --set: must be {allowed}")
    assert "\n" not in said and len(said) < 200


def _numbers(model, names=()):
    """Every field of the configuration that holds a number, by its key."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _numbers(field.annotation, (*names, name))
        elif {int, float} & {field.annotation, *get_args(field.annotation)}:
            yield ".".join((*names, name))


IDS = [f"models.{name}.id=a" for name in load_config().models]
NUMBERS = [
    *_numbers(Config),
    *(f"models.{name}.{key}" for name, settings in load_config().models.items() for key in _numbers(type(settings))),
]


def test_every_number_of_the_configuration_has_a_range_on_both_sides():
    assert len(NUMBERS) > 35
    for key in NUMBERS:
        for value in ("1e15", "-1e15", ".inf", "true", "'1'"):
            with pytest.raises(ConfigError, match=f"'{key}' in --set: must be a (whole )?number (from|above)"):
                load_config(None, [*IDS, f"{key}={value}"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training: {seed: 1, seed: 2}\n", "c.yaml:1: the key 'seed' was already set in line 1."),
        ("root: a\ntraining: {}\nroot: b\n", "c.yaml:3: the key 'root' was already set in line 1."),
        ("source: {known_at: {user_additional: 2026-02-30}}\n", "c.yaml:1: '2026-02-30' is no date that there is."),
        ("source: {known_at: {user_additional: '2026-02-30'}}\n", "must be a date such as 2016-03-01, from 1970-01-01"),
        ("source: {known_at: {user_additional: 0001-01-01}}\n", "before 2200-01-01, or null; it is 0001-01-01."),
        ("source: {known_at: {user_additional: 5}}\n", "must be a date such as 2016-03-01"),
        ("training: " + "[" * 5000 + "\n", "c.yaml:1: values are nested more than 20 levels deep."),
        ("a: &a [*a]\n", "c.yaml:1: the alias *a stands inside of what it names."),
        ("a: &a {b: *a}\n", "c.yaml:1: the alias *a stands inside of what it names."),
        (
            "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            "b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
            "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
            "there are more than 10,000 values, aliases counted in full.",
        ),
        ("training: {seed: " + "9" * 5000 + "}\n", "is no value that there is."),
        ("training: {seed: !!int ''}\n", "is no value that there is."),
        ("report: {gallery: !!bool maybe}\n", "is no value that there is."),
        ("report: {gallery: 1}\n", "must be true or false, not 1."),
        ("report: {gallery: 'yes'}\n", "must be true or false, not a text."),
        ("1: 2\n", "c.yaml:1: a key must be a word; put quotes around it."),
        ("? [a]\n: 1\n", "c.yaml:1: a key must be a word; put quotes around it."),
        ('root: "a\\0b"\n', "'root' in c.yaml: holds a control character."),
        ('root: "a\\ud800"\n', "'root' in c.yaml: holds half of a surrogate pair"),
        ("extends: [a, b]\n", "'extends' in c.yaml: must be the path of another file."),
        ("extends: .\n", "Configuration file . cannot be read: Is a directory."),
        ("- a\n- b\n", "must hold keys and values, not a list."),
        ("root: a\n---\nroot: b\n", "c.yaml:2 is not valid YAML"),
        ("#" * 1_000_001, "c.yaml is longer than 1,000,000 bytes."),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_meant_is_one_line_with_file_and_line_or_key(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config("c.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_file_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"c\.yaml is not a text in UTF-8"):
        load_config(tmp_path / "c.yaml")


def test_a_wrong_value_names_the_file_it_stands_in_and_not_the_one_that_extends_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text("training: {folds: 2}\nmodels: {clip: {id: a, max_batch: 0}}\n")
    Path("top.yaml").write_text("extends: base.yaml\ntraining: {seed: 1}\n")
    with pytest.raises(ConfigError, match=r"'models.clip.max_batch' in base\.yaml: must be"):
        load_config("top.yaml")
    with pytest.raises(ConfigError, match=r"'training.folds' in base\.yaml: must be"):
        load_config("top.yaml", ["models.clip.max_batch=1"])
    with pytest.raises(ConfigError, match=r"'training.folds' in --set: must be"):
        load_config("top.yaml", ["models.clip.max_batch=1", "training.folds=1"])


def test_a_number_may_be_written_with_an_exponent_and_a_whole_one_for_a_fraction():
    config = load_config(None, ["training.adapter.learning_rate=1e-3", "extraction.chunk_minutes=2"])
    assert (config.training.adapter.learning_rate, config.extraction.chunk_minutes) == (0.001, 2.0)
