"""The operator's side of secure aggregation: four questions, and the sum of the firms' models."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar, final

import numpy as np

from parties.exchange import (
    Advertised,
    Array,
    Deal,
    Dealt,
    FedpactError,
    Keys,
    Masked,
    Masking,
    Offer,
    Request,
    Shares,
    Trained,
    Unmask,
    Weights,
)
from parties.exchange.masks import FEWEST_MASKED, threshold
from parties.masking import shamir
from parties.masking.keys import pair_mask, round_of, sum_of
from parties.masking.words import from_words, stream
from server.intake import Limits
from server.strategies import as_type
from server.transport import Answers, Ask

log = logging.getLogger("fedpact")

SUM = "sum"
"""The name of the one update of a masked round: the mean of the firms' models."""

Kind = TypeVar("Kind")


@final
class VoidError(FedpactError):
    """Too few firms are left, or what they sent does not fit together: there is no sum."""


def add_up(
    ask: Ask,
    opening: Keys,
    offer: Callable[[Masking], Offer],
    firms: Sequence[str],
    limits: Limits,
) -> tuple[Answers, dict[str, Weights]]:
    """Hold one round under masks (`parties.masking`). A firm may fall silent at any step.

    Args:
        opening: names the round.
        offer: the offer to train, given the masking of one firm.
        firms: who is asked.

    Returns:
        What came of the questions, as if there had been one: who trained, and who refused, failed
        or was silent before it had; and the mean of the models as the one update, or none where the
        round is void.
    """
    found = Answers()
    try:
        return found, {SUM: _add_up(found, ask, opening, offer, firms, limits)}
    except VoidError as fault:
        log.warning("%s, round %d is void: %s", opening.terms.contract, opening.round, fault)
        return found, {}


def _add_up(
    found: Answers,
    ask: Ask,
    opening: Keys,
    offer: Callable[[Masking], Offer],
    firms: Sequence[str],
    limits: Limits,
) -> Weights:
    place = (opening.terms, opening.seed, opening.round)

    told = _told(found, ask, dict.fromkeys(firms, opening), Advertised)
    examples = _examples(found, told)
    keys = {name: told[name].keys for name in examples}
    _check(keys, FEWEST_MASKED, "have keys")
    needed = threshold(len(keys))

    signatures = {name: told[name].signature for name in keys if told[name].signature}
    dealt = _told(found, ask, dict.fromkeys(keys, Deal(*place, keys, signatures)), Dealt)
    _check(dealt, needed, "dealt shares")
    total = sum(examples[name] for name in dealt)
    maskings = {name: Masking(total, keys, _sent_to(name, dealt)) for name in dealt}

    trained = _told(found, ask, {name: offer(m) for name, m in maskings.items()}, Trained)
    masked = _masked(found, trained, examples)
    _check(masked, needed, "masked a model")

    names = tuple(sorted(masked))
    last = {name: Unmask(*place, maskings[name], names) for name in names}
    helped = Answers()  # who does not help has trained all the same
    shares = _told(helped, ask, last, Shares)
    for name, reason in sorted({**helped.refused, **helped.faulty, **helped.silent}.items()):
        log.warning("%s does not help to undo the masks: %s", name, reason)

    words = np.asarray(sum(masked[name].words for name in names))
    counted = sum(examples[name] for name in names)
    try:
        where = sum_of(round_of(opening), total, dealt)
        words -= _masks(names, dealt, keys, shares, where, len(words))
        means = from_words(words, masked[names[0]].shapes, counted / total)
    except FedpactError as fault:
        raise VoidError(str(fault)) from fault
    mean = Weights({key: as_type(v, _like(key, masked)) for key, v in means.items()}, counted)
    if mean.norm > limits.max_norm:
        raise VoidError(f"the mean's norm {mean.norm:.3g} exceeds {limits.max_norm:.3g}")
    return mean


def _told(
    found: Answers, ask: Ask, requests: Mapping[str, Request], kind: type[Kind]
) -> dict[str, Kind]:
    """The answers to one step, by name; who gave none is noted, and asked no more."""
    answers = ask(requests, 0)
    for kept, new in (
        (found.refused, answers.refused),
        (found.faulty, answers.faulty),
        (found.silent, answers.silent),
    ):
        kept.update(new)
    return {n: a for n, a in sorted(answers.usable.items()) if isinstance(a, kind)}


def _examples(found: Answers, told: Mapping[str, Advertised]) -> dict[str, int]:
    """Examples of each firm that has a part in the sum; free riders and copied keys have none."""
    uses = Counter(key.tobytes() for answer in told.values() for key in answer.keys)
    for name, answer in told.items():
        if answer.examples == 0:
            found.usable[name] = Trained(0, ())
        elif any(uses[key.tobytes()] > 1 for key in answer.keys):
            found.faulty[name] = "has the key of another firm, or one key twice"
    return {n: a.examples for n, a in told.items() if a.examples and n not in found.faulty}


def _sent_to(receiver: str, dealt: Mapping[str, Dealt]) -> dict[str, Array]:
    return {name: d.sealed[receiver] for name, d in dealt.items() if name != receiver}


def _masked(
    found: Answers, trained: Mapping[str, Trained], examples: Mapping[str, int]
) -> dict[str, Masked]:
    """The masked models, by firm, of those that trained on as much as they said."""
    masked = dict[str, Masked]()
    for name, answer in trained.items():
        first = next(iter(masked.values()), answer.masked)
        if answer.examples != examples[name]:
            found.faulty[name] = f"said {examples[name]} examples, and trained on {answer.examples}"
        elif answer.masked is None or first is None or answer.masked.shapes != first.shapes:
            found.faulty[name] = (
                f"has a model of other shapes than {next(iter(masked), 'the rest')}"
            )
        else:
            masked[name] = answer.masked
            found.usable[name] = replace(answer, masked=None)
    return masked


def _masks(
    names: Sequence[str],
    dealt: Mapping[str, Dealt],
    keys: Mapping[str, Array],
    shares: Mapping[str, Shares],
    where: str,
    count: int,
) -> Array:
    """All that is in the sum beside models: own masks, and those for firms that fell silent."""
    places = {name: place for place, name in enumerate(sorted(keys), 1)}
    needed = threshold(len(keys))

    def secret(name: str, kind: str) -> bytes:
        told = {places[n]: getattr(s, kind) for n, s in shares.items() if name in getattr(s, kind)}
        try:
            return shamir.join({at: part[name].tobytes() for at, part in told.items()}, needed)
        except FedpactError as fault:
            raise FedpactError(f"the masks of {name} stay on: {fault}") from fault

    masks = np.zeros(count, np.uint64)
    for name in names:
        masks += stream(secret(name, "selves"), count)
    for gone in sorted(dealt.keys() - set(names)):
        key = secret(gone, "pairs")
        for name in names:
            # What the one that is gone would have added for the other, less than nothing.
            masks -= pair_mask(key, gone, name, keys[name], where, count)
    return masks


def _like(tensor: str, masked: Mapping[str, Masked]) -> Array:
    """A number in the type of a tensor: the first firm's by name, of fractions if any sent some."""
    kinds = [np.dtype(masked[name].dtypes[tensor]) for name in sorted(masked)]
    return np.zeros((), next((kind for kind in kinds if kind.kind == "f"), kinds[0]))


def _check(firms: Mapping[str, object], least: int, what: str) -> None:
    if len(firms) < least:
        raise VoidError(f"{len(firms)} firms {what} ({', '.join(sorted(firms))}); it takes {least}")
