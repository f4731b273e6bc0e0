"""A new column of `posts` needs its line in the table's specification and the source that states it, nothing else."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path

from smp_features.lake import specs

# The line in `lake/specs.py`.
*others, row_hash = specs.POSTS.columns
language = specs.Column("language", "string", "what the title is written in; null if unknown")
specs.POSTS = replace(specs.POSTS, columns=(*others, language, row_hash))

from smp_features.config import Config, SourceConfig
from smp_features.ingest.scan import POST_FILES, scan
from smp_features.lake.schema import Schema
from smp_features.lake.tables import create_statement
from smp_features.runs import Phases
from smp_features.sources.base import RowSource


class Source(RowSource):
    # What a source's reader says of a post.
    splits, place = ("train",), "two posts"

    def check(self): ...
    def image_root(self, split): return None

    def rows(self, split):
        for number, language in enumerate(("en", None), 1):
            yield {"pid": str(number), "uid": "u", "event_ts": 10**15, "popularity": 1.0, "language": language}


def stage(name, rows, schema):
    if name == POST_FILES:
        assert str(schema.field("language").type) == "string"
        print([row["language"] for row in rows])


scratch = Path(sys.argv[1])
scan(Source(SourceConfig(path=str(scratch)), scratch), scratch, "run", Phases(), stage)
print("`language` string" in create_statement(Schema.of(Config()).specs["posts"], "posts"))
"""


def test_a_column_is_staged_and_created_from_the_one_line_that_says_what_it_is(tmp_path):
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["['en', None]", "True"]
