"""Who is who, and for what: ids of clients, and their folds. Two firms come to the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from parties.exchange import Array

ORDER = ("contested", "validation", "held_out", "common", "training")


def id_of(text: str) -> int:
    """The id of a client who is known by a text: the first 63 bits of its sha256.

    >>> id_of("client 7") == id_of("client 7") != id_of("client 8")
    True
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def fold(key: str, shuffle: int, client: int, folds: int) -> int:
    """The fold of one client, 0 to folds - 1: sha256 of the key, the shuffle and the id.

    It depends on no other client, so that firms agree whatever rows they hold, in any order.
    """
    said = f"{len(key)}:{key}:{shuffle}:{client}".encode()
    return int.from_bytes(hashlib.sha256(said).digest()[:8]) % folds


def divide(ids: Array, folds: Mapping[str, int], key: str, seed: int) -> dict[str, Array]:
    """Rows of each part under a seed, of clients ids (n,).

    Of F folds in all, seed s takes them from fold s mod F of shuffle s // F on: first those of the
    contested clients, then validation, held_out, common and training. So F consecutive seeds
    contest every client equally often.

    >>> ids = np.arange(1000)
    >>> loans = {"training": 3, "validation": 1, "contested": 1}
    >>> {part: len(rows) for part, rows in divide(ids, loans, "", 0).items()}
    {'contested': 217, 'validation': 217, 'training': 566}
    >>> sum(len(divide(ids, loans, "", seed)["contested"]) for seed in range(5))
    1000
    """
    count = sum(folds.values())
    shuffle, turn = divmod(seed, count)
    own = np.array([fold(key, shuffle, client, count) for client in ids.tolist()], np.int64)
    place = (own - turn) % count
    parts, first = {}, 0
    for part in ORDER:
        if part in folds:
            last = first + folds[part]
            parts[part] = np.flatnonzero((first <= place) & (place < last))
            first = last
    return parts
