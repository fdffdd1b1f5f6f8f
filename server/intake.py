"""Intake: nothing a firm sends is used before it is checked. A bad answer names its firm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from parties.exchange import (
    Actions,
    Advertised,
    Answer,
    Array,
    Deal,
    Dealt,
    Declaration,
    Enrol,
    Fault,
    FedpactError,
    Keys,
    Masked,
    Measure,
    Offer,
    Play,
    Predictions,
    Query,
    Refusal,
    Request,
    Reveal,
    Revealed,
    Scores,
    Serve,
    Served,
    Settle,
    Settled,
    Shares,
    Trained,
    Unmask,
    Weights,
)
from parties.masking.keys import useful

LEGAL = frozenset(map(np.dtype, (np.float32, np.float64, np.int64)))  # of tensors
MOST_EPOCHS = 10_000
MOST_ABREAST = 64

EXPECTED: dict[type, type] = {
    Enrol: Declaration,
    Offer: Trained,
    Query: Predictions,
    Play: Actions,
    Serve: Served,
    Measure: Scores,
    Reveal: Revealed,
    Settle: Settled,
    Keys: Advertised,
    Deal: Dealt,
    Unmask: Shares,
}


@final
class UnacceptableError(FedpactError):
    """An answer the operator will not use, with the reason."""


@final
@dataclass(frozen=True)
class Limits:
    """What the operator accepts, and how long it waits.

    Args:
        max_norm: largest L2 norm of a model's weights.
        minimum_firms: a run ends where fewer firms enrol, or answer when models are measured. (A
            round of training with too few for its rule is void, and the next one is held.)
        wait_s: seconds to wait for a firm's answer to one question; where sessions are held side by
            side it gets several at once, and so many times as long.
        abreast: sessions that are held side by side where firms are far away.
    """

    max_norm: float = 1e4
    minimum_firms: int = 2
    wait_s: float = 600.0
    abreast: int = 40

    def __post_init__(self) -> None:
        if type(self.abreast) is int and self.abreast > MOST_ABREAST:
            raise FedpactError(
                f"limits.abreast is {self.abreast}; legal are 1 to {MOST_ABREAST}: a desk keeps "
                "models of so many seeds."
            )
        for name in ("max_norm", "wait_s", "minimum_firms", "abreast"):
            value, counts = getattr(self, name), name in ("minimum_firms", "abreast")
            number = isinstance(value, int | float) and not isinstance(value, bool)
            whole = not counts or isinstance(value, int)
            if not number or not whole or not np.isfinite(value) or value <= 0:
                raise FedpactError(
                    f"limits.{name} is {value!r}; legal is a {'whole ' if counts else ''}number "
                    "> 0."
                )


def accept(request: Request, answer: Answer, known: Declaration | None, limits: Limits) -> Answer:
    """The answer, fit for use: example counts are capped by the declared number.

    A Refusal or a Fault passes as it is.

    Args:
        request: what was asked.
        answer: what came back.
        known: what this firm declared (None while it enrols).
        limits: the operator's bounds.

    Raises:
        UnacceptableError: with what is wrong, in words fit for the log.
    """
    if isinstance(answer, Refusal | Fault):
        return answer
    expected = EXPECTED[type(request)]
    if not isinstance(answer, expected):
        raise UnacceptableError(f"sent {type(answer).__name__}, asked for {expected.__name__}")
    if isinstance(answer, Declaration):
        return answer
    if known is None:
        raise UnacceptableError("answered before it declared who it is")
    match answer:
        case Trained():
            return _trained(request, answer, known, limits)
        case Predictions():
            _predictions(request, answer, known)
        case Actions():
            _length(len(answer.ids), known.contested, "actions")
        case Served():
            _length(len(answer.ids), known.common, "answers")
        case Revealed():
            _length(len(answer.ids), known.validation, "true classes")
        case Settled():
            assert isinstance(request, Settle)
            _settled(request, answer, known)
        case Scores():
            _length(answer.cases, known.held_out, "scored cases")
            assert isinstance(request, Measure)
            if (answer.own_log_loss is not None) != request.compare:
                raise UnacceptableError("told of its own model unasked, or did not where asked")
            if (answer.by_class is not None) != request.by_class:
                raise UnacceptableError("told of classes unasked, or did not where asked")
            if answer.report is not None and not request.adopt:
                raise UnacceptableError("told how it judged a model that it was not to choose")
        case Advertised():
            _advertised(answer, known)
        case Dealt():
            assert isinstance(request, Deal)
            _names(answer.sealed, set(request.keys) - {known.firm}, "shares")
        case Shares():
            assert isinstance(request, Unmask)
            dealers = {*request.masking.sealed, known.firm}
            _only(answer.selves, set(request.masked), "shares of their own masks")
            _only(answer.pairs, dealers - set(request.masked), "shares of their masks for others")
    return answer


def _trained(request: Request, answer: Trained, known: Declaration, limits: Limits) -> Trained:
    assert isinstance(request, Offer)
    if answer.examples == 0:
        if request.terms.models:
            return answer  # a free rider: it trained on nothing, and says so
        raise UnacceptableError("trained on nothing, for itself")
    # A firm's stopping rule may end its training before the last epoch.
    most = request.epochs if request.terms.models and request.epochs else MOST_EPOCHS
    if not 1 <= len(answer.losses) <= most:
        raise UnacceptableError(
            f"sent {len(answer.losses)} losses for {request.epochs or 'its own'} epochs"
        )
    if not all(map(math.isfinite, answer.losses)):
        raise UnacceptableError("a training loss is not finite")
    bare = request.terms.models and not request.terms.secure
    for name, due in (("weights", bare), ("masked", request.terms.secure)):
        if (getattr(answer, name) is not None) != due:
            what = "weights" if name == "weights" else "masked weights"
            wanted = f"{what} are due" if due else f"no {what} may be sent"
            raise UnacceptableError(f"{wanted} under {request.terms.contract}")
    capped = answer
    if answer.examples > known.examples:
        capped = replace(answer, examples=known.examples)
    if answer.masked is not None:
        _masked(answer.masked, known)
    if answer.weights is None:
        return capped
    _weights(answer.weights, known, limits)
    if (answer.weights.precision is not None) != request.precision:
        raise UnacceptableError("sent a precision that was not asked for, or none that was")
    if (answer.weights.card is not None) != request.card:
        raise UnacceptableError("sent a profile card that was not asked for, or none that was")
    if answer.weights.examples <= known.examples:
        return capped
    return replace(capped, weights=replace(answer.weights, examples=known.examples))


def _weights(weights: Weights, known: Declaration, limits: Limits) -> None:
    if weights.arrays.keys() != known.tensors.keys():
        odd = sorted(set(weights.arrays) ^ set(known.tensors))
        raise UnacceptableError(f"tensor names differ from the declared ones: {', '.join(odd)}")
    squares = 0.0
    for name, array in weights.arrays.items():
        if array.shape != known.tensors[name]:
            raise UnacceptableError(
                f"{name} has shape {array.shape}, declared {known.tensors[name]}"
            )
        real = array.dtype.kind == "f"
        if not real and name in known.parameters:
            raise UnacceptableError(f"{name} is trained, and came as {array.dtype}; send floats")
        if array.dtype not in LEGAL:
            raise UnacceptableError(
                f"{name} has dtype {array.dtype}; legal are float32, float64, int64"
            )
        square = float(np.vdot(array, array)) if real else 0.0
        if not math.isfinite(square) and not np.all(np.isfinite(array)):
            raise UnacceptableError(f"{name} holds values that are not finite")
        squares += square
    if weights.precision is not None:
        _precision(weights.precision, known, limits)
    for name, array in (weights.card or {}).items():
        if not np.all(np.isfinite(array)):
            raise UnacceptableError(f"the card's {name} holds values that are not finite")
    # Roughly known by now, and of most models far below the limit; exactly it takes longer to find.
    if not squares < (limits.max_norm / 2) ** 2 and weights.norm > limits.max_norm:
        raise UnacceptableError(
            f"the weights' norm {weights.norm:.3g} exceeds {limits.max_norm:.3g}"
        )


def _advertised(answer: Advertised, known: Declaration) -> None:
    if answer.examples > known.examples:
        raise UnacceptableError(
            f"would train on {answer.examples} examples, declared {known.examples}"
        )
    if answer.examples == 0 and known.contributes:
        raise UnacceptableError("would train on nothing, and declared that it contributes")
    if not all(useful(key.tobytes()) for key in answer.keys):
        raise UnacceptableError("has a public key that nobody can agree on anything with")


def _masked(masked: Masked, known: Declaration) -> None:
    """The layout of a masked model; what is in it, nobody can tell."""
    _names(masked.shapes, set(known.tensors), "tensors")
    for name, shape in masked.shapes.items():
        if shape != tuple(known.tensors[name]):
            raise UnacceptableError(f"{name} has shape {shape}, declared {known.tensors[name]}")
        if name in known.parameters and not masked.dtypes[name].startswith("float"):
            raise UnacceptableError(
                f"{name} is trained, and came as {masked.dtypes[name]}; send floats"
            )


def _names(found: Mapping[str, object], due: set[str], what: str) -> None:
    odd = sorted(set(found) ^ due)
    if odd:
        raise UnacceptableError(f"sent other {what} than are due: {', '.join(odd)}")


def _only(found: Mapping[str, object], due: set[str], what: str) -> None:
    odd = sorted(set(found) - due)
    if odd:
        raise UnacceptableError(f"sent {what} that nobody asked for: {', '.join(odd)}")


def _precision(precision: Mapping[str, Array], known: Declaration, limits: Limits) -> None:
    """Of every parameter and of nothing else, each within the square of the largest norm."""
    odd = sorted(set(precision) ^ set(known.parameters))
    if odd:
        raise UnacceptableError(
            f"the precision must be of every trained tensor and no other: {', '.join(odd)}"
        )
    for name, array in precision.items():
        if not np.all(np.isfinite(array)) or np.any(array > limits.max_norm**2):
            raise UnacceptableError(
                f"the precision of {name} holds values that are not finite, or above "
                f"{limits.max_norm**2:.3g}"
            )


def _predictions(request: Request, answer: Predictions, known: Declaration) -> None:
    assert isinstance(request, Query)
    _length(len(answer.ids), getattr(known, request.part), "predictions")
    # Of common clients a firm may tell of any number of classes, or of poses.
    _probabilities(answer.probs, None if request.part == "common" else 2)


def _settled(request: Settle, answer: Settled, known: Declaration) -> None:
    """What a firm says it earned can be earned with its actions, and is of all of its clients."""
    _length(answer.cases, getattr(known, request.part), "settled clients")
    odd = sorted(set(answer.scores) - set(request.scored))
    if odd:
        raise UnacceptableError(f"told scores that nobody asked for: {', '.join(odd)}")
    right_or_wrong = np.tile([0.0, 1.0], (len(request.actions), 1))
    worth = right_or_wrong if request.worth is None else request.worth[request.actions]
    legal = request.shares[:, None] * worth
    low, high = float(legal.min(1).mean()), float(legal.max(1).mean())
    slack = 1e-9 * max(1.0, abs(low), abs(high))
    if not low - slack <= answer.payoff <= high + slack:
        raise UnacceptableError(
            f"says it earned {answer.payoff:g} a client; its actions earn {low:g} to {high:g}"
        )
    stake = 1.0 if request.worth is None else float(np.abs(request.worth).max())
    reach = 2 * stake + slack  # between any two payoffs of a client
    if abs(answer.gain) > reach or answer.variance > reach**2 * len(legal):
        raise UnacceptableError(
            f"says it gained {answer.gain:g} a client with a variance of {answer.variance:g}; no "
            f"two payoffs of a client are further apart than {reach:g}"
        )
    most = known.examples + known.validation + known.contested + known.common
    if answer.population > most:
        raise UnacceptableError(f"knows {answer.population} clients, and declared {most}")
    if answer.payoffs is None:
        return
    if not np.all((answer.payoffs[:, None] == legal).any(1)):
        raise UnacceptableError("says it earned of a client what its action cannot earn")
    if abs(float(answer.payoffs.mean()) - answer.payoff) > slack:
        raise UnacceptableError("told payoffs whose mean is not the one that it told")


def _probabilities(probs: Array, classes: int | None) -> None:
    if classes is not None and probs.shape[1] != classes:
        raise UnacceptableError(f"sent {probs.shape[1]} classes, the market has {classes}")
    if not np.all(np.isfinite(probs)) or np.any(probs < 0) or np.any(probs > 1):
        raise UnacceptableError("a probability is outside [0, 1]")
    if np.any(np.abs(probs.sum(1) - 1) > 1e-6):
        raise UnacceptableError("probabilities do not sum to one")


def _length(found: int, declared: int, what: str) -> None:
    if found != declared:
        raise UnacceptableError(f"sent {found} {what} for {declared} declared clients")
