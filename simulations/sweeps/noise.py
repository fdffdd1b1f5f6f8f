"""How much noise a contract bears: where along an axis of epsilon firms sign it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import pandas as pd

from parties.exchange import Array
from simulations.sweeps.columns import Axis, answers, holds

KEY = re.compile(r"contract\.(\w+)\.((?:prediction|update)_epsilon)")
WORDS = {1.0: "every firm signs", 0.0: "some firm refuses"}
GROUPS, FIRMS = 12, 4  # combinations of the other axes, and firms, that are told one by one


def borne(table: pd.DataFrame, axes: Sequence[Axis]) -> list[str]:
    """A sentence for each axis of epsilon, and each combination of what else varies.

    It goes from the least noise to the most; a contract is individually rational where every firm
    signs it.
    """
    found = []
    for axis in axes:
        named = KEY.fullmatch(axis.key)
        if named is None or len(axis.levels) < 2 or f"{named[1]}.signed" not in table:
            continue
        others = [a for a in axes if a.key != axis.key and len(a.levels) > 1]
        groups = itertools.product(*(range(len(a.levels)) for a in others))
        for places in itertools.islice(groups, GROUPS):
            chosen = holds(table, named[1])
            for other, place in zip(others, places, strict=True):
                chosen = chosen & (other.places == place)
            verdicts = _along(table, axis, named[1], chosen)
            if len(verdicts) > 1:
                where = [f"{a.key}={a.labels[p]}" for a, p in zip(others, places, strict=True)]
                with_ = f" with {', '.join(where)}" if where else ""
                firms = _firms(table, axis, named[1], chosen)
                found.append(f"{named[1]} by {named[2]}{with_}: {told(verdicts)}{firms}")
    return found


def _firms(table: pd.DataFrame, axis: Axis, contract: str, chosen: Array) -> str:
    """Where each firm signs that signs somewhere and not everywhere, if firms are few."""
    ends, columns = (f"{contract}.", ".decision"), [str(name) for name in table]
    decisions = [c for c in columns if c.startswith(ends[0]) and c.endswith(ends[1])]
    sentences = ""
    for column in decisions if len(decisions) <= FIRMS else ():
        signs = (table[column] == "signs").to_numpy(dtype=bool)
        signed = {
            axis.labels[place]: bool(signs[here].all())
            for place in reversed(range(len(axis.levels)))
            if (here := (axis.places == place) & chosen).any()
        }
        runs = [(yes, list(run)) for yes, run in itertools.groupby(signed, signed.__getitem__)]
        if len(runs) > 1:
            spans = " and ".join(_span(levels) for yes, levels in runs if yes)
            sentences += f" {column[len(ends[0]) : -len(ends[1])]} signs {spans}."
    return sentences


def _along(table: pd.DataFrame, axis: Axis, contract: str, chosen: Array) -> dict[str, str]:
    """Level, from the least noise to the most -> what firms say of the contract there."""
    said, verdicts = answers(table[f"{contract}.signed"]), {}
    for place in reversed(range(len(axis.levels))):
        here = set(said[(axis.places == place) & chosen].tolist())
        if here:
            verdicts[axis.labels[place]] = WORDS.get(here.pop(), "") if len(here) == 1 else ""
    return verdicts


def told(verdicts: dict[str, str]) -> str:
    """Where firms sign, in words, and where they cease to.

    >>> signs, refuses = WORDS.values()
    >>> print(told({"off": signs, "8": signs, "4": signs, "2": "", "1": refuses}))
    every firm signs from off to 4, undecided at 2, some firm refuses at 1. It is individually \
rational from off to 4. It stops being so below 4: at 2 it is undecided.
    >>> print(told({"off": refuses, "2": signs}))
    some firm refuses at off, every firm signs at 2. It is individually rational at 2.
    """
    runs = [(word, list(run)) for word, run in itertools.groupby(verdicts, verdicts.__getitem__)]
    parts = [f"{word or 'undecided'} {_span(levels)}" for word, levels in runs]
    signed = [place for place, (word, _) in enumerate(runs) if word == WORDS[1.0]]
    sentence = f"{', '.join(parts)}. It is individually rational "
    if len(signed) == len(runs):
        return f"{sentence}at every one of them."
    if not signed:
        return f"{sentence}at none of them."
    sentence += f"{' and '.join(_span(runs[place][1]) for place in signed)}."
    last = signed[-1]
    if last + 1 < len(runs):
        (word, levels), least = runs[last + 1], runs[last][1][-1]
        what = word or "it is undecided"
        sentence += f" It stops being so below {least}: at {levels[0]} {what}."
    return sentence


def _span(levels: Sequence[str]) -> str:
    """The ends of some levels in a row."""
    return f"at {levels[0]}" if len(levels) == 1 else f"from {levels[0]} to {levels[-1]}"
