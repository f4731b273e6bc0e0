"""What a stage reports adds up."""

from __future__ import annotations

from smp_features.runs import Phases, Summary, new_run_id


def test_a_summary_reconciles_only_when_every_row_is_accounted_for():
    assert Summary("s", wanted=4, ok=1, failed=1, left=1, given_up=1).reconciles
    assert not Summary("s", wanted=4, ok=1, failed=1, left=1).reconciles


def test_phases_add_up():
    phases = Phases()
    with phases("write"):
        pass
    phases.add("write", 2.0)
    assert phases.seconds["write"] >= 2.0
    assert new_run_id() != new_run_id()
