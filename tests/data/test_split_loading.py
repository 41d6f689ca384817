from __future__ import annotations

import pytest

from zoo.data._loading import UnrepeatedSampler, check_flag, check_integer


def test_21_positions_over_two_ranks_are_neither_repeated_nor_lost():
    ranks = [UnrepeatedSampler(21, rank, 2) for rank in range(2)]
    assert [len(sampler) for sampler in ranks] == [11, 10]
    assert list(ranks[0]) == list(range(0, 21, 2))
    assert sorted([*ranks[0], *ranks[1]]) == list(range(21))


def test_a_rank_may_be_empty():
    ranks = [list(UnrepeatedSampler(2, rank, 3)) for rank in range(3)]
    assert ranks == [[0], [1], []]
    assert len(UnrepeatedSampler(2, 2, 3)) == 0


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_outside_the_world_is_refused(rank, world):
    with pytest.raises(ValueError, match=rf"rank must .* got {rank}"):
        UnrepeatedSampler(5, rank, world)


@pytest.mark.parametrize("value", [0, -3, 1.0, True, "4", None])
def test_integers_are_checked_by_name_rule_and_value(value):
    with pytest.raises(ValueError, match=rf"batch_size must be an integer of at least 1, got {value!r}"):
        check_integer("batch_size", value, 1)


@pytest.mark.parametrize("value", ["no", "true", 0, 1, None])
def test_flags_are_true_or_false(value):
    with pytest.raises(ValueError, match=rf"augment must be true or false, got {value!r}"):
        check_flag("augment", value)
