"""Where things go: firms to actors, and how many actors nodes have room for."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

UNIT = 10_000  # Ray counts shares in ten-thousandths


def largest_first(sizes: Mapping[str, int], actors: int) -> dict[str, int]:
    """An actor for every firm, so that all have about as much to do.

    The largest firm first, each to the actor that has the least so far; of equal firms the
    name decides, and of equal actors the one with fewer firms, then the lower. The fullest
    actor gets at most 4/3 - 1/(3 m) times what it would in the best division among m actors.

    Args:
        sizes: firm -> what it has to do, >= 0; actors: how many there are.

    References:
        Graham, Bounds on multiprocessing timing anomalies, SIAM J. Appl. Math. 17(2), 1969.

    >>> largest_first({"a": 2, "b": 3, "c": 2, "d": 3, "e": 2}, 2)
    {'b': 0, 'd': 1, 'a': 0, 'c': 1, 'e': 0}
    """
    loads = [(0, 0, actor) for actor in range(actors)]
    found: dict[str, int] = {}
    for firm in sorted(sizes, key=lambda firm: (-sizes[firm], firm)):
        load, firms, actor = loads[0]
        heapq.heapreplace(loads, (load + sizes[firm], firms + 1, actor))
        found[firm] = actor
    return found


def room_for(
    wanted: int, num_cpus: float, num_gpus: float, nodes: Iterable[tuple[float, float]]
) -> int:
    """How many of the wanted actors can ever run at once.

    A share of a GPU lies on one GPU: of two with 0.6 each, two GPUs are needed.

    Args:
        num_cpus, num_gpus: shares of one actor; nodes: (CPUs, GPUs) of each.

    >>> room_for(4, 1, 0.6, [(8, 1), (8, 2)])
    3
    """
    cpu, gpu = round(num_cpus * UNIT), round(num_gpus * UNIT)
    room = 0
    for cpus, gpus in nodes:
        here = wanted
        if cpu:
            here = min(here, round(cpus * UNIT) // cpu)
        if gpu:
            here = min(here, int(gpus) * (UNIT // gpu) if gpu < UNIT else int(gpus) * UNIT // gpu)
        room += here
    return min(room, wanted)


def gpus_for(actors: int, num_gpus: float) -> int:
    """The fewest GPUs that such actors run on.

    >>> gpus_for(3, 0.6), gpus_for(3, 0.5), gpus_for(3, 2), gpus_for(3, 0)
    (3, 2, 6, 0)
    """
    gpu = round(num_gpus * UNIT)
    if gpu >= UNIT or not gpu:
        return actors * gpu // UNIT
    return -(-actors // (UNIT // gpu))
