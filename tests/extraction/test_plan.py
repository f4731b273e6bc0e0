"""Counts of an extractor's keys."""

from __future__ import annotations

from smp_features.extraction.plan import Ledger


def test_after_some_work_what_was_left_is_counted_where_it_came_to_stand():
    before = Ledger(done={"ok": 5, "empty": 1}, given_up=2, left={"00a": 3, "fff": 1}, refused=1, unknown=1)
    of_the_six = Ledger(done={"ok": 2, "truncated": 1}, given_up=1, left={"fff": 1}, unknown=1, duplicates=1)
    after = before.after(of_the_six)
    assert after == Ledger(
        done={"ok": 7, "empty": 1, "truncated": 1}, given_up=3, left={"fff": 1}, unknown=1, duplicates=1
    )
    assert after.wanted == before.wanted == 14
