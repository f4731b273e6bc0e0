"""Secrets in what is written down: logs, messages, `runs`, locks, MLflow's records, the report."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_SECRET_NAME = re.compile(
    r"(?i)(secret|passw(or)?d|passphrase|token|credential|authorization|signature"
    r"|(api|access|account|private|shared|signing|encryption|client|master)[-_.]?key|sas([-_.]|$)"
    r"|(^|[-_.])(pwd|sig|pat)$)"
)
_NO_SECRET = re.compile(r"(?i)tokens$|tokenizer|token[-_.](count|id)|provider")
"""Names that hold such a word and whose values are none."""

_USER_INFO = re.compile(r"\b([a-z][a-z0-9+.-]*)://([^/@\s'\"]+)@", re.IGNORECASE)
_CONTAINER_SCHEMES = ("abfs", "abfss", "wasb", "wasbs")
"""Schemes whose addresses have the container where others have the user."""

_ASSIGNED = re.compile(r"""([\w.-]+)(['"]?\s*[=:]\s*)(?!//)("[^"]*"|'[^']*'|[^\s,;&{}\[\]()'"]+)""")
_FORMS = re.compile(
    r"\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bdapi[0-9a-f]{32}(-\d+)?\b|\bgh[pousr]_\w{30,}|\bhf_\w{30,}"
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*|(?i:\bbearer\s+)[\w.~+/-]{8,}=*"
)
"""What well-known kinds of keys look like wherever they stand."""

_SHORTEST = 4
"""Characters of a secret that is looked for by its value; shorter ones would hide half of every message."""

_remembered: set[str] = set()


def is_secret(name: str) -> bool:
    """Whether a setting of this name is a secret.

    >>> is_secret("spark.hadoop.fs.s3a.secret.key"), is_secret("max_tokens")
    (True, False)
    """
    return bool(_SECRET_NAME.search(name)) and not _NO_SECRET.search(name)


def redacted(text: str) -> str:
    """Return a text without secrets: users and passwords of addresses, values of names such as `token` or `sig`, keys
    of well-known forms, and every secret of the configuration that was read.

    >>> redacted("s3://me:hush@bucket/lake?X-Amz-Signature=abc&part=1")
    's3://***@bucket/lake?X-Amz-Signature=***&part=1'
    """
    for secret in sorted(_remembered, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _USER_INFO.sub(_hide_user, text)
    text = _FORMS.sub(HIDDEN, text)
    return _without_values(text)


def redacted_values(value: Any, name: str = "") -> Any:
    """Return nested settings with every secret in them hidden.

    >>> redacted_values({"conf": {"fs.s3a.secret.key": "hush", "uri": "http://a:b@c"}, "seed": 7})
    {'conf': {'fs.s3a.secret.key': '***', 'uri': 'http://***@c'}, 'seed': 7}
    """
    if isinstance(value, Mapping):
        return {key: redacted_values(below, str(key)) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(redacted_values(below, name) for below in value)
    if isinstance(value, str):
        return HIDDEN if value and is_secret(name) else redacted(value)
    return value


def remember_secrets(settings: Mapping[str, Any]) -> None:
    """Take note of the secrets in nested settings, so that `redacted` hides them wherever they turn up."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            remember_secrets(value)
        elif isinstance(value, str):
            users = [user for scheme, user in _USER_INFO.findall(value) if _is_user(scheme, user)]
            for secret in [value] if is_secret(str(key)) else users:
                _remembered.update(part for part in (secret, secret.partition(":")[2]) if len(part) >= _SHORTEST)


class Redacting(logging.Filter):
    """Hides the secrets in log records, their arguments and their exceptions."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; all records pass."""
        record.msg, record.args = redacted(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = redacted(logging.Formatter().formatException(record.exc_info))
        return True


def _is_user(scheme: str, user: str) -> bool:
    return scheme.lower() not in _CONTAINER_SCHEMES or ":" in user


def _hide_user(found: re.Match[str]) -> str:
    scheme, user = found.groups()
    return f"{scheme}://{HIDDEN}@" if _is_user(scheme, user) else found.group(0)


def _without_values(text: str) -> str:
    """Hide what follows the names of secrets; what follows another name may be such a name in turn."""
    kept, place = [], 0
    while found := _ASSIGNED.search(text, place):
        name, value = found[1], found[3]
        hides = is_secret(name) and not value.startswith(HIDDEN)
        end = found.end() if hides else found.start(3)
        kept.append(text[place : found.start(3)] + (HIDDEN if hides else ""))
        place = end
    return "".join(kept) + text[place:]
