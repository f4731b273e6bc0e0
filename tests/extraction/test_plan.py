"""Counts of an extractor's keys."""

from __future__ import annotations

from smp_features.extraction.plan import LISTED, Ledger, take_stock


def test_after_some_work_what_was_left_is_counted_where_it_came_to_stand():
    before = Ledger(done={"ok": 5, "empty": 1}, given_up=2, left={"00a": 3, "fff": 1}, refused=1, unknown=1)
    of_the_six = Ledger(done={"ok": 2, "truncated": 1}, given_up=1, left={"fff": 1}, unknown=1, duplicates=1)
    after = before.after(of_the_six)
    assert after == Ledger(
        done={"ok": 7, "empty": 1, "truncated": 1}, given_up=3, left={"fff": 1}, unknown=1, duplicates=1
    )
    assert after.wanted == before.wanted == 14


def test_unfinished_keys_are_listed_while_those_of_the_same_digits_are_few(spark):
    def counted(*states, **how):
        schema = "key string, state string, status string, rows long, content string"
        return take_stock(spark.createDataFrame(states, schema), **how)

    same = [(f"abc{n}", "left", None, 0, "ok") for n in range(LISTED)]
    others = [
        ("abc_done", "done", "ok", 1, "ok"),
        ("abc_twice", "done", "ok", 2, "ok"),
        ("abc_tried", "given_up", None, 0, "ok"),
        ("abc_cut", "refused", None, 0, "truncated"),
        ("abc_gone", "unknown", None, 0, None),
        ("def0", "left", None, 0, "ok"),
    ]
    few = counted(*same, *others)
    assert few.ledger == Ledger(
        done={"ok": 2}, given_up=1, left={"abc": LISTED, "def": 1}, refused=1, unknown=1, duplicates=1
    )
    assert few.unfinished is not None
    assert sorted(few.unfinished, key=str) == sorted(
        [*((key, "ok") for key, *_ in same), ("abc_cut", "truncated"), ("abc_gone", None), ("def0", "ok")], key=str
    )
    unlisted = counted(*same, *others, listing=False)
    assert (unlisted.ledger, unlisted.unfinished) == (few.ledger, None)
    many = counted(*same, *others, (f"abc{LISTED}", "left", None, 0, "ok"))
    assert many.unfinished is None
    assert many.ledger.left == {"abc": LISTED + 1, "def": 1}
