"""Chunks: every key left in exactly one of them, sized by speed."""

from __future__ import annotations

from smp_features.extraction.chunks import Cutter

LEFT = {f"{shard}{digit}0": 10 for shard in "0123456789abcdef" for digit in "08"}  # 32 prefixes, 320 rows


def _cut(cutter: Cutter, speed: float | None = None) -> list:
    chunks = []
    while (chunk := cutter.cut(speed)) is not None:
        chunks.append(chunk)
    return chunks


def test_all_that_fits_is_one_chunk_of_all_its_shards():
    (chunk,) = _cut(Cutter(LEFT, 400, 5))
    assert (chunk.low, chunk.high, chunk.rows) == ("", None, 320)
    assert chunk.shards == tuple("0123456789abcdef")


def test_chunks_are_ranges_that_meet_and_name_only_their_shards():
    chunks = _cut(Cutter(LEFT, 50, 5))
    assert sum(chunk.rows for chunk in chunks) == 320
    assert [chunk.high for chunk in chunks[:-1]] == [chunk.low for chunk in chunks[1:]]
    assert chunks[0].low == "" and chunks[-1].high is None
    assert chunks[0].shards == ("0", "1", "2")
    for prefix in LEFT:
        holding = [c for c in chunks if c.low <= prefix and (c.high is None or prefix < c.high)]
        assert len(holding) == 1 and prefix[0] in holding[0].shards
    assert len({chunk.name for chunk in chunks}) == len(chunks)


def test_size_follows_the_measured_speed():
    cutter = Cutter(LEFT, 50, minutes=0.5)
    assert cutter.cut(None).rows == 50
    assert cutter.cut(4.0).rows == 120
    assert cutter.cut(0.001).rows == 10  # a chunk is never empty


def test_a_small_remainder_joins_the_chunk_before():
    assert [chunk.rows for chunk in _cut(Cutter(LEFT, 220, 5))] == [320]
    assert [chunk.rows for chunk in _cut(Cutter(LEFT, 200, 5))] == [200, 120]


def test_nothing_left_is_no_chunk():
    assert Cutter({}, 10, 5).cut(None) is None


def test_a_chunk_is_spread_over_tasks_of_half_a_minute_once_the_speed_is_known():
    cutter = Cutter(LEFT, 25, minutes=2, slots=2)
    assert (cutter.cut(None).rows, cutter.cut(1.0).tasks) == (50, 8)  # 120 rows in 2 minutes, by two slots
    assert Cutter(LEFT, 25, 5, slots=2).cut(None).tasks == 2
    assert Cutter({"000": 1}, 25, 5, slots=2).cut(None).tasks == 1  # a second worker would load a model for nothing


def test_the_last_chunk_is_small_and_in_small_tasks():
    cutter = Cutter(LEFT, 25, minutes=5, slots=2)
    assert cutter.cut(None).rows == 50
    # Of 270 rows at 1 row/s, 30 seconds are kept back: nothing comes after them that could fill a slot.
    assert [(chunk.rows, chunk.tasks) for chunk in _cut(cutter, 1.0)] == [(240, 16), (30, 6)]
    few = Cutter({"000": 60}, 25, minutes=5, slots=2)
    assert [(chunk.rows, chunk.tasks) for chunk in _cut(few, 1.0)] == [(60, 12)]


def test_the_last_chunk_is_a_part_of_a_short_one():
    cutter = Cutter(LEFT, 10, minutes=0.5)
    assert [chunk.rows for chunk in _cut(cutter, 6.0)] == [180, 110, 30]  # 36 rows are 6 of 30 seconds
