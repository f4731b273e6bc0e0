"""Micro-batches: within their cost, like with like, smaller after running out of memory."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest

from smp_features.extraction.batches import (
    CALL_SHARE,
    GROW_AFTER,
    Prepared,
    RowLimit,
    fill,
    is_device_failure,
    is_out_of_memory,
)


def _rows(*costs: float) -> list[Prepared]:
    return [Prepared(f"k{n:03d}", n, cost) for n, cost in enumerate(costs)]


def test_a_batch_costs_its_rows_times_the_dearest():
    full, rest = fill(_rows(1, 5, 2, 5, 1, 1), max_cost=10)
    assert [[row.cost for row in batch] for batch in full] == [[5, 5], [2]]
    assert [row.cost for row in rest] == [1, 1, 1]


def test_every_row_is_in_exactly_one_batch_and_none_costs_too_much():
    rows = _rows(*((n * 37) % 11 + 1 for n in range(200)))
    full, rest = fill(rows, max_cost=40)
    assert sorted(row.key for batch in [*full, rest] for row in batch) == sorted(row.key for row in rows)
    assert all(len(batch) * batch[0].cost <= 40 for batch in full)
    assert len(rest) * rest[0].cost <= 40
    assert all(dearer[-1].cost >= cheaper[0].cost for dearer, cheaper in pairwise([*full, rest]))


def test_a_batch_ends_where_padding_the_rest_would_cost_more_than_a_call():
    # Of 160, a call is worth 10: three rows cheaper by 3 are padded, four are not.
    assert [len(batch) for batch in fill(_rows(*[10] * 13, *[7] * 3), 160)[0]] == [16]
    assert [len(batch) for batch in fill(_rows(*[10] * 12, *[7] * 4), 160, last=True)[0]] == [12, 4]
    # Rows of one cost stay together, however much dearer the first ones are.
    assert [len(batch) for batch in fill(_rows(10, *[1] * 9), 160, last=True)[0]] == [1, 9]


@pytest.mark.parametrize("seed", range(20))
def test_no_other_division_costs_less(seed):
    random, most = np.random.default_rng(seed), 24
    rows = _rows(*random.choice([1, 2, 3, 5, 8, 12], 10))
    falling = sorted((row.cost for row in rows), reverse=True)

    def cost(batches):
        return sum(len(batch) * batch[0] + most * CALL_SHARE for batch in batches)

    possible = []
    for marks in product([False, True], repeat=9):
        cuts = [0, *(place for place, cut in enumerate(marks, 1) if cut), 10]
        batches = [falling[start:end] for start, end in pairwise(cuts)]
        if all(len(batch) * batch[0] <= most for batch in batches):
            possible.append(cost(batches))
    found, _ = fill(rows, most, last=True)
    assert cost([[row.cost for row in batch] for batch in found]) == min(possible)


def test_rows_that_others_may_join_wait_until_no_others_come():
    rows = _rows(10, *[1] * 9)
    assert fill(rows, 160) == ([rows[:1]], rows[1:])
    assert fill([], 160) == ([], [])
    full, rest = fill(rows, 160, last=True)
    assert [row.key for batch in full for row in batch] == [row.key for row in rows]
    assert rest == []


def test_a_row_dearer_than_a_batch_runs_alone():
    full, rest = fill(_rows(50, 1), max_cost=10)
    assert [[row.cost for row in batch] for batch in full] == [[50]]
    assert [row.cost for row in rest] == [1]


def test_equal_costs_are_ordered_by_key_so_that_batches_repeat():
    rows = _rows(1, 1, 1, 1)
    assert fill(rows[::-1], 2) == fill(rows, 2)


def test_the_limit_halves_and_grows_back_slowly():
    limit = RowLimit()
    rows = _rows(*[1] * 8)
    assert limit.cut(rows) == [rows]
    limit.shrink(8)
    assert [len(piece) for piece in limit.cut(rows)] == [4, 4]
    for _ in range(GROW_AFTER - 1):
        limit.succeed(4)
    assert limit.rows == 4
    limit.succeed(3)  # a part batch proves nothing
    assert limit.rows == 4
    limit.succeed(4)
    assert limit.rows == 8
    limit.shrink(1)
    assert limit.rows == 1


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OutOfMemoryError("x"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_only_running_out_of_memory_counts_as_that(error, expected):
    assert is_out_of_memory(error) is expected


def test_a_failed_device_is_told_from_a_failed_input():
    assert is_device_failure(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_device_failure(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
