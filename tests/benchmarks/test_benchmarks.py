"""The page of results is what the figures say, and outputs are compared as the page claims."""

from __future__ import annotations

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.__main__ import NAMES, contents_of, of
from benchmarks.chaos import LAST, draw_moments
from benchmarks.contenders.protocol import VALUES
from benchmarks.executions import use_of_queries
from benchmarks.fault_cost import rows_done_at
from benchmarks.race import differences
from benchmarks.results import FOLDER, render
from benchmarks.slots import use_of_slots


def test_the_page_of_results_is_what_the_figures_say():
    sections = {name: of(name, "section") for name in NAMES}
    assert (FOLDER.parent / "RESULTS.md").read_text(encoding="utf-8") == render(sections, contents_of)


@pytest.fixture
def written(tmp_path):
    def write(name, extractor, **rows):
        values = pa.array(list(rows.values()), VALUES[extractor])
        pq.write_table(pa.table({"key": list(rows), "value": values}), tmp_path / name)
        return tmp_path / name

    return write


def test_vectors_differ_by_their_largest_component_whatever_the_order_of_rows(written):
    one = written("one", "clip_text", a=[1.0, 0.0], b=[0.0, 1.0], c=[1.0, 0.0])
    two = written("two", "clip_text", b=[0.0, 1.0], a=[0.75, 0.0])
    assert differences("clip_text", one, two) == {"rows": 2, "missing": 1, "largest": 0.25}


def test_captions_that_differ_are_counted(written):
    one = written("one", "caption", a="a red ball", b="a dog")
    two = written("two", "caption", a="a red ball", b="a cat")
    assert differences("caption", one, two) == {"rows": 2, "missing": 0, "different": 1}


def test_time_is_accounted_for_by_what_slots_did(tmp_path):
    def stage(number, *operators):
        rdds = [{"Scope": json.dumps({"id": "1", "name": name})} for name in operators] + [{}]
        return {"Event": "SparkListenerStageSubmitted", "Stage Info": {"Stage ID": number, "RDD Info": rdds}}

    def task(number, start, end):
        times = {"Launch Time": 1000 * start, "Finish Time": 1000 * end}
        return {"Event": "SparkListenerTaskEnd", "Stage ID": number, "Task Info": times}

    events = [
        stage(0, "Scan parquet"), stage(1, "MapInArrow", "Exchange"),
        task(0, 90, 101), task(1, 102, 106), task(0, 103, 104), task(1, 105, 110), task(0, 111, 112),
    ]  # fmt: skip
    (tmp_path / "log").write_text("\n".join(map(json.dumps, events)))
    found = use_of_slots(tmp_path, 2, 100, 113)
    # From 102 to 110 are 16 slot-seconds: 9 with a model, 1 with another task, 6 without any.
    assert found == {"before": 2, "between": 8, "model": 4.5, "small": 0.5, "empty": 3, "after": 3}


def test_time_is_accounted_for_by_what_queries_were_for(tmp_path):
    sql = "org.apache.spark.sql.execution.ui.SparkListenerSQLExecution"

    def begins(number, at, plan, root=None):
        of = {"executionId": number, "rootExecutionId": number if root is None else root}
        return {"Event": f"{sql}Start", **of, "time": 1000 * at, "physicalPlanDescription": plan}

    def ends(number, at):
        return {"Event": f"{sql}End", "executionId": number, "time": 1000 * at}

    def job(number, start, end, root=None):
        asked = {} if root is None else {"spark.sql.execution.root.id": str(root)}
        times = {"Submission Time": 1000 * start, "Stage IDs": [number], "Properties": asked}
        task = {"Launch Time": 1000 * start, "Finish Time": 1000 * end}
        return [
            {"Event": "SparkListenerJobStart", "Job ID": number, **times},
            {"Event": "SparkListenerTaskEnd", "Stage ID": number, "Task Info": task},
            {"Event": "SparkListenerJobEnd", "Job ID": number, "Completion Time": 1000 * end},
        ]

    events = [
        begins(0, 80, "Scan"), *job(0, 81, 95, 0), ends(0, 95),  # before the span
        *job(1, 101, 102, 1),  # while the query is planned, so before it is said to start
        begins(1, 103, "Scan"), *job(2, 103, 104, 1), ends(1, 106),
        begins(2, 105, "Execute MergeIntoCommand"), begins(3, 106, "Scan", 2), *job(3, 106, 108, 2),
        ends(3, 108), ends(2, 110),
        begins(4, 107, "MapInArrow"), *job(4, 107, 112, 4), ends(4, 112),
        *job(5, 113, 114),  # of no query
    ]  # fmt: skip
    (tmp_path / "log").write_text("\n".join(map(json.dumps, events)))
    found = use_of_queries(tmp_path, 100, 115)

    def row(seconds, jobless, queries, jobs, tasks):
        return {"seconds": seconds, "jobless": jobless, "queries": queries, "jobs": jobs, "tasks": tasks}

    assert found == {
        "merge": row(5, 1, 1, 1, 2),  # 105 to 110, jobs of its own or another from 106 on
        "model": row(2, 0, 1, 1, 5),  # 107 to 112, less what the MERGE has
        "keys": row(5, 2, 2, 3, 3),  # 101 to 105 and 113 to 114, jobs in all but 102 to 103 and 104 to 105
        "record": row(0, 0, 0, 0, 0),
        "nothing": row(3, 3, 0, 0, 0),  # 100 to 101, 112 to 113 and 114 to 115
    }


def test_moments_to_kill_are_spread_over_the_whole_run_and_a_seed_draws_them_again():
    course = [(float(second), second // 10 * 100) for second in range(101)]  # stands still for ten seconds at a time
    moments = draw_moments(course, 5, random.Random(3))
    times = [rows / 10 + since for rows, since in moments]
    parts = [LAST * 100 * number / 5 for number in range(6)]
    assert all(low <= at <= high for low, at, high in zip(parts, times, parts[1:], strict=False))
    assert all(0 <= since < 10 for _, since in moments)
    assert moments == draw_moments(course, 5, random.Random(3)) != draw_moments(course, 5, random.Random(4))


@pytest.mark.parametrize(
    ("computing", "counted", "done"),
    [("text_embeddings", 18, 14), ("text_embeddings", 13, 13), ("captions", 5, 4), (None, 25, 20)],
)
def test_a_chunk_counted_twice_while_it_is_published_is_no_row_of_a_later_table(computing, counted, done):
    rows = {"texts": 99, "captions": 4, "image_embeddings": 4, "text_embeddings": 6, "perplexities": 6}
    posters = {"commands_killed": {"differences": {table: {"rows": number} for table, number in rows.items()}}}
    assert rows_done_at({"computing": computing, "rows_done": counted}, posters) == done
