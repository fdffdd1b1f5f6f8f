"""Firms are dealt out evenly, and actors are only asked for where they can run."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.engines.placement import UNIT, gpus_for, largest_first, room_for

SIZES = st.dictionaries(st.integers(1000, 1099), st.integers(0, 50), min_size=1, max_size=6)
# Whole ten-thousandths, up to one GPU; or whole GPUs.
SHARES = st.one_of(st.integers(1, UNIT).map(lambda units: units / UNIT), st.integers(1, 3))


def fullest(sizes: dict[int, int], homes: dict[int, int]) -> int:
    loads = Counter[int]()
    for firm, home in homes.items():
        loads[home] += sizes[firm]
    return max(loads.values())


@settings(deadline=None)
@given(SIZES, st.integers(1, 3))
def test_no_actor_gets_more_than_a_third_beyond_the_best_division(
    sizes: dict[int, int], actors: int
) -> None:
    best = min(
        fullest(sizes, dict(zip(sizes, homes, strict=True)))
        for homes in product(range(actors), repeat=len(sizes))
    )
    found = fullest(sizes, largest_first(sizes, actors))
    assert found <= best * (Fraction(4, 3) - Fraction(1, 3 * actors))


@given(SIZES, st.integers(1, 8), st.randoms(use_true_random=False))
def test_a_division_depends_on_the_sizes_only_and_leaves_no_actor_idle(
    sizes: dict[int, int], actors: int, random: object
) -> None:
    homes = largest_first(sizes, actors)
    assert homes.keys() == sizes.keys()
    assert len(set(homes.values())) == min(actors, len(sizes))
    assert set(homes.values()) <= set(range(actors))
    order = sorted(sizes)
    random.shuffle(order)  # type: ignore[attr-defined]
    assert largest_first({firm: sizes[firm] for firm in order}, actors) == homes


@given(st.integers(1, 20), st.integers(0, 9), st.integers(1, 5))
def test_equal_firms_stay_where_dealing_them_out_in_turn_puts_them(
    firms: int, size: int, actors: int
) -> None:
    nodes = range(1000, 1000 + firms)
    found = largest_first(dict.fromkeys(nodes, size), actors)
    assert found == {node: place % actors for place, node in enumerate(nodes)}


def test_the_bound_is_reached() -> None:
    """Graham's worst case for two actors: 7/6."""
    sizes = dict(enumerate([3, 3, 2, 2, 2]))
    assert fullest(sizes, largest_first(sizes, 2)) == 7


def filled(cpus: int, gpus: int, num_cpus: float, num_gpus: float) -> int:
    """Actors put on a node one by one, until there is no room for another."""
    share, gpu = Fraction(str(num_cpus)), Fraction(str(num_gpus))
    left, free, count = Fraction(cpus), [Fraction(1)] * gpus, 0
    while left >= share:
        if gpu >= 1:
            whole = [place for place, room in enumerate(free) if room == 1][: int(gpu)]
            if len(whole) < gpu:
                break
            for place in whole:
                free[place] = Fraction(0)
        else:
            place = next((p for p, room in enumerate(free) if room >= gpu), None)
            if place is None:
                break
            free[place] -= gpu
        left, count = left - share, count + 1
    return count


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=3),
    st.sampled_from([0.1, 0.25, 0.3, 0.5, 0.75, 1, 1.5, 2]),
    SHARES.filter(lambda share: share >= 0.05),
)
def test_nodes_have_room_for_as_many_actors_as_can_be_put_on_them_one_by_one(
    nodes: list[tuple[int, int]], num_cpus: float, num_gpus: float
) -> None:
    most = sum(filled(cpus, gpus, num_cpus, num_gpus) for cpus, gpus in nodes)
    assert room_for(1000, num_cpus, num_gpus, nodes) == most
    for wanted in (0, most, max(most - 1, 0)):
        assert room_for(wanted, num_cpus, num_gpus, nodes) == wanted


@given(st.integers(1, 30), SHARES)
def test_the_fewest_gpus_are_enough_and_one_less_is_not(actors: int, num_gpus: float) -> None:
    fewest = gpus_for(actors, num_gpus)
    assert room_for(actors, 0, num_gpus, [(0, fewest)]) == actors
    assert room_for(actors, 0, num_gpus, [(0, fewest - 1)]) < actors


def test_actors_that_take_nothing_have_room_anywhere() -> None:
    assert room_for(7, 0, 0, [(0, 0)]) == 7
    assert room_for(7, 0, 0, []) == 0
    assert room_for(3, 0.3333, 0.3333, [(1, 1)]) == 3
