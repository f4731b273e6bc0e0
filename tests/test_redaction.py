"""Secrets: none of them stands in what is written down, wherever it was given."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from smp_features.config import load_config
from smp_features.console import explaining
from smp_features.errors import StageError
from smp_features.lake.lock import writing
from smp_features.redaction import Redacting, redacted, redacted_values


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:hush@host/path", "https://***@host/path"),
        ("postgresql+psycopg2://me:hush@host:5432/db", "postgresql+psycopg2://***@host:5432/db"),
        ("s3://AKIAABCDEFGHIJKLMNOP:hush@bucket/lake", "s3://***@bucket/lake"),
        ("abfss://box:hush@account.dfs.core.windows.net/x", "abfss://***@account.dfs.core.windows.net/x"),
        ("https://h/x?sv=1&sig=hush%3D&se=2", "https://h/x?sv=1&sig=***&se=2"),
        ("https://h/x?X-Amz-Credential=hush/1&X-Amz-Signature=hush", "https://h/x?X-Amz-Credential=***&X-Amz-Signature=***"),
        ("--set spark.conf={fs.s3a.secret.key: hush, a: 1}", "--set spark.conf={fs.s3a.secret.key: ***, a: 1}"),
        ("fs.azure.account.key.box.dfs.core.windows.net=hush==", "fs.azure.account.key.box.dfs.core.windows.net=***"),
        ("{'password': 'two words', 'user': 'me'}", "{'password': ***, 'user': 'me'}"),
        ('{"client_secret": "hush"}', '{"client_secret": ***}'),
        ("AWS_SECRET_ACCESS_KEY=hush MLFLOW_TRACKING_TOKEN=a", "AWS_SECRET_ACCESS_KEY=*** MLFLOW_TRACKING_TOKEN=***"),
        ("It failed: token=hush. Again: user=me", "It failed: token=*** Again: user=me"),
        ("Authorization: Bearer abcdefgh.ijkl", "Authorization: ***"),
        ("key AKIAABCDEFGHIJKLMNOP was refused", "key *** was refused"),
        ("dapi0123456789abcdef0123456789abcdef", "***"),
    ],
)  # fmt: skip
def test_secrets_are_hidden_by_their_name_their_form_and_in_addresses(text, shown):
    assert redacted(text) == shown
    assert "hush" not in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "image_key: 0a1b, text_key = 2c3d",
        "abfss://container@account.dfs.core.windows.net/lake",
        "models.language.max_tokens=256, tokenizer: gpt2",
        "ok: 3, left: 4; https://host:5000/path?page=2",
        "Configuration key 'source.limit': must be a whole number",
    ],
)
def test_what_is_no_secret_is_left_as_it_is(text):
    assert redacted(text) == text


def test_a_secret_of_the_configuration_is_hidden_wherever_it_turns_up():
    load_config(None, ["registry.tracking_uri=https://anna:pa55phrase@host", "spark.conf={my.api.key: 'k3y-0f-m1ne'}"])
    assert redacted("user anna with pa55phrase and k3y-0f-m1ne") == "user anna with *** and ***"
    assert redacted_values({"uri": "http://x:y@h", "token": "t", "n": 1, "l": ["pa55phrase"]}) == {
        "uri": "http://***@h", "token": "***", "n": 1, "l": ["***"],
    }  # fmt: skip


def test_no_secret_of_the_command_line_stands_in_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["smp", "--set", "registry.tracking_uri=https://me:hush-hush@host", "run"])
    with writing(str(tmp_path / "lake")):
        held = json.loads((tmp_path / "lake" / ".lock").read_text())
    assert held["command"] == "smp --set registry.tracking_uri=https://***@host"


def test_logs_and_errors_show_no_secret(capsys):
    record = logging.LogRecord("smp_features", logging.INFO, "", 0, "reading %s", ("s3://me:hush@b",), None)
    assert Redacting().filter(record) and record.getMessage() == "reading s3://***@b"
    with pytest.raises(SystemExit), explaining():
        raise StageError("The store at https://me:hush@host failed.", "token=hush")
    assert "hush" not in capsys.readouterr().err


def test_no_secret_stands_in_the_parameters_of_a_run():
    from smp_features.training.records import parameters

    found = parameters(
        load_config(None, ["registry.tracking_uri=https://me:hush@h", "models.clip.id=https://me:hush@h/m"])
    )
    assert found["models.clip.id"] == "https://***@h/m"
    assert "hush" not in str(found)
