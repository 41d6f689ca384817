from __future__ import annotations

import pytest

from zoo.data._loading import UnrepeatedSampler


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
