"""Differential privacy: the noise that a firm puts on what leaves it, and what that costs.

Two mechanisms, both applied by the firm itself and named by the terms of a contract:

* *Predictions* (`prediction_epsilon`): k-ary randomised response on the signal that the game is
  played on (the bin of a probability; the class, where all serve the same clients). Whoever acts on
  a bin learns nothing else from a prediction, and of one bit no mechanism of the same epsilon tells
  more than randomised response (Kairouz, Oh, Viswanath, arXiv 1407.1338): noise on the probability
  itself would blur the bin more. One unit of privacy is a firm's one prediction for one client.
  What is told of the same client adds up: under several seeds, or under contracts of different
  epsilons, the epsilons are summed. Under contracts of the same epsilon the firm tells the same.
* *Models* (`update_epsilon`): the Gaussian mechanism on what the firm's model learnt in a round.
  One unit of privacy is all of a firm's training data. Neighbours are a firm with its data and the
  same firm with none, whose update is zero; the L2 sensitivity is `update_clip` a round. (To tell
  one data set of the firm from another, whose updates differ by twice that, costs what half the
  noise costs.) The accountant is exact: T rounds of Gaussian noise, each asked for in the light of
  those before, cost what one of sqrt(T) times the sensitivity costs. Under several seeds or
  contracts, (epsilon, delta) add up. Losses, numbers of examples and what a firm says of a
  model's quality go to the operator as they are.

Noise follows from a key and from what is told, so that to ask again is to hear the same again: no
average takes it off. The key of a simulation is known to everyone (`SEEDED`); a real firm keeps a
`SECRET` one.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
import scipy

from parties.exchange import Array, Asking, Offer, Play, Query, Terms, truthful
from parties.memory import Memory

SEEDED, SECRET = "seeded", "secret"
SECRETS = (SEEDED, SECRET)
SURE = 0.9
"""What a told class counts for where nothing was noised: less than certainty, which no other
opinion could outweigh."""


def key_of(noise: str, memory: Memory) -> str:
    """The key of a firm's noise; a secret one is drawn by the operating system at its first use."""
    if noise == SEEDED:
        return ""
    return memory.notes.setdefault("noise key", secrets.token_hex(32))


@final
@dataclass(frozen=True)
class Draw:
    """Noise for one answer of a firm, the same whenever it tells the same.

    Args:
        key: the firm's secret, or what everyone knows in a simulation.
        about: which answer it is, and by how much it is noised.
        content: what is told, before noise. Another content has noise of its own: the difference
            of two answers is no way around it.
    """

    key: str
    about: tuple[str | float, ...]
    content: Mapping[str, Array]

    def uniform(self, count: int) -> Array:
        """Numbers (count,) from the open interval (0, 1), by SHAKE-256."""
        words = json.dumps([self.key, *self.about, _digest(self.content.items())])
        drawn = hashlib.shake_256(words.encode()).digest(8 * count)
        whole = np.frombuffer(drawn, "<u8") >> np.uint64(12)
        uniform: Array = (whole + 0.5) * 2.0**-52
        return uniform


# ----------------------------------------------------------------------------------- predictions


def respond(signals: Array, k: int, epsilon: float, draws: Array) -> Array:
    """Told signals (n,) for true ones (n,) of 0..k-1, by draws (n,) from (0, 1).

    >>> respond(np.array([0, 0, 1]), 2, np.log(3), np.array([0.7, 0.8, 0.8])).tolist()
    [0, 1, 0]
    """
    keep = truthful(epsilon, k)
    if keep == 1:
        return signals
    other = np.minimum(((draws - keep) / (1 - keep) * (k - 1)).astype(np.int64), k - 2)
    told: Array = np.where(draws < keep, signals, other + (other >= signals))
    return told


def told_as_probabilities(told: Array, edges: Array) -> Array:
    """Probabilities (n, 2) that stand for signals: the middle of each one's bin.

    >>> told_as_probabilities(np.array([0, 1]), np.array([0.5])).tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """
    ends = np.concatenate([[0.0], edges, [1.0]])
    one = ((ends[:-1] + ends[1:]) / 2)[told]
    return np.stack([1 - one, one], axis=1)


def told_as_opinions(told: Array, k: int, epsilon: float) -> Array:
    """Opinions (n, k) that stand for told classes, as sure as the noise lets anyone be.

    The told class gets what it would have if the class before noise were right with probability
    `SURE`, and every other an equal share of the rest.

    >>> told_as_opinions(np.array([1]), 2, np.log(3)).round(3).tolist()
    [[0.3, 0.7]]
    """
    keep = truthful(epsilon, k)
    sure = SURE * keep + (1 - SURE) * (1 - keep) / max(k - 1, 1)
    opinions = np.full((len(told), k), (1 - sure) / max(k - 1, 1))
    opinions[np.arange(len(told)), told] = sure if k > 1 else 1.0
    return opinions


# ---------------------------------------------------------------------------------------- models


def blurred(
    arrays: Mapping[str, Array],
    start: Mapping[str, Array],
    parameters: Iterable[str],
    terms: Terms,
    draw: Draw,
) -> dict[str, Array]:
    """A trained model as it may leave the firm: what it learnt, clipped and noised.

    What is not trained (running means, counters) stays as it was in `start`. An update that is not
    finite counts as none.

    Args:
        arrays: tensor name -> trained array; start: what they were before.
        parameters: names of those that are trained.
        draw: where the noise comes from.
    """
    names = sorted(parameters)
    learnt = [arrays[n].astype(np.float64) - start[n].astype(np.float64) for n in names]
    with np.errstate(over="ignore", invalid="ignore"):
        norm = math.sqrt(math.fsum(float(np.sum(np.square(a))) for a in learnt))
    clip = terms.update_clip
    share = min(1.0, clip / norm) if 0 < norm < math.inf else float(norm == 0)
    scale = noise_scale(terms)
    normal = scipy.special.ndtri(draw.uniform(sum(a.size for a in learnt)))
    found, used = {name: np.array(array) for name, array in start.items()}, 0
    for name, update in zip(names, learnt, strict=True):
        kept = share * update if share else np.zeros(update.shape)
        noise = scale * normal[used : used + update.size].reshape(update.shape)
        used += update.size
        found[name] = np.asarray(start[name] + kept + noise, arrays[name].dtype)
    return found


def noise_scale(terms: Terms) -> float:
    """Standard deviation of the noise on each number of an update."""
    each = noise_multiplier(terms.update_epsilon, terms.update_delta, terms.rounds)
    return terms.update_clip * each


def gaussian_delta(epsilon: float, multiplier: float, rounds: int = 1) -> float:
    """The delta at which so many rounds of Gaussian noise have this epsilon, exactly.

    With mu = sqrt(rounds) / multiplier it is Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 -
    epsilon/mu) (Balle and Wang, arXiv 1805.06530, theorem 8; for rounds, Dong, Roth and Su, arXiv
    1905.02383).

    Args:
        multiplier: standard deviation of the noise, in units of the L2 sensitivity.

    >>> round(gaussian_delta(1.0, 1.0), 6)
    0.126937
    """
    mu = math.sqrt(rounds) / multiplier
    above = scipy.special.log_ndtr(mu / 2 - epsilon / mu)
    below = epsilon + scipy.special.log_ndtr(-mu / 2 - epsilon / mu)
    return float(-math.exp(above) * math.expm1(min(below - above, 0.0)))


@lru_cache(maxsize=256)
def noise_multiplier(epsilon: float, delta: float, rounds: int = 1) -> float:
    """The least noise for which so many rounds together cost (epsilon, delta).

    Returns:
        Standard deviation of a round's noise, in units of the L2 sensitivity.

    >>> round(noise_multiplier(1.0, 1e-5), 4)
    3.7306
    """
    found = scipy.optimize.brentq(
        lambda log: math.log(max(gaussian_delta(epsilon, math.exp(log)), 1e-300) / delta),
        math.log(1e-6),
        math.log(1e12),
        xtol=1e-12,
    )
    return math.sqrt(rounds) * math.exp(float(found))


def gaussian_epsilon(multiplier: float, delta: float, rounds: int = 1) -> float:
    """The epsilon of so many rounds of Gaussian noise at this delta; 0 where that is enough."""
    if gaussian_delta(0.0, multiplier, rounds) <= delta:
        return 0.0
    high = 1.0
    while gaussian_delta(high, multiplier, rounds) > delta:
        high *= 2
    return float(
        scipy.optimize.brentq(lambda e: gaussian_delta(e, multiplier, rounds) - delta, 0.0, high)
    )


# ----------------------------------------------------------------------------------------- policy


def epsilons(terms: Terms) -> dict[str, float]:
    """Kind of what crosses under these terms ("models", "predictions") -> its epsilon.

    Infinite where it crosses as it is.

    >>> epsilons(Terms("infer_sharing", False, True, prediction_epsilon=2.0))
    {'predictions': 2.0}
    """
    crossing = (
        ("models", terms.models, terms.update_epsilon),
        ("predictions", terms.predictions, terms.prediction_epsilon),
    )
    return {kind: epsilon or math.inf for kind, crosses, epsilon in crossing if crosses}


def objection(terms: Terms, most_epsilon: float | None) -> str:
    """Why terms tell more than a firm's own policy lets out, or "".

    Args:
        most_epsilon: largest epsilon of anything that crosses; None: any, and no noise too.

    >>> objection(Terms("infer_sharing", False, True), 1.0)
    'infer_sharing lets predictions cross without noise; epsilon may be 1 at most'
    """
    most = math.inf if most_epsilon is None else most_epsilon
    for kind, epsilon in epsilons(terms).items():
        if epsilon > most:
            how = "without noise" if epsilon == math.inf else f"with epsilon {epsilon:g}"
            return f"{terms.contract} lets {kind} cross {how}; epsilon may be {most:g} at most"
    return ""


def unprotected(request: Asking, memory: Memory) -> str:
    """Why noise would not protect what is asked for, or "".

    The noise of a contract is paid for once: another question about the same cases would cost more.
    """
    if isinstance(request, Offer) and request.terms.update_epsilon:
        terms = request.terms
        if request.precision or request.card:
            return f"noise under {terms.contract} is on weights, and more than weights are asked"
        if request.round >= terms.rounds:
            return f"{terms.contract} pays for {terms.rounds} rounds, and one more is asked"
        model = "none" if request.model is None else _digest(request.model.arrays.items())
        asked = f"{model} {request.epochs} {request.proximal}"
        key = f"began/{terms.contract}/{request.seed}/{request.round}"
        if memory.notes.setdefault(key, asked) != asked:
            return f"{terms.contract} pays for one update a round, and another one is asked"
    edges = _edges(request)
    if edges is not None:
        key, asked = f"edges/{request.terms.contract}/{request.seed}", _digest([("edges", edges)])
        if memory.notes.setdefault(key, asked) != asked:
            return f"{request.terms.contract} pays for one set of signals, and another is asked"
    return ""


def _edges(request: Asking) -> Array | None:
    """The bounds of the firm's own signals, where these are told with noise."""
    if request.terms.prediction_epsilon:
        match request:
            case Query():
                return request.edges
            case Play():
                return request.rule.edges
    return None


def _digest(arrays: Iterable[tuple[str, Array]]) -> str:
    told = hashlib.sha256()
    for name, array in arrays:
        told.update(f"{name} {array.dtype} {array.shape} ".encode())
        told.update(np.ascontiguousarray(array).tobytes())
    return told.hexdigest()
