"""Settings of the contract game, each from a few parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

from parties.exchange import FedpactError
from server.game.worlds import History, Instance, Setting, World, fraction

Pair = tuple[Any, Any]
MOST_SAMPLES = 4
COUPLINGS = ("measured", "independent", "strongest", "weakest")


def correlation(
    alpha: Any,
    beta: Any,
    worlds: Sequence[tuple[Any, Any]],
    R: Pair = (0, 1),
    C: Pair = (0, 1),
    gamma: Any = Fraction(1, 2),
) -> Setting:
    """Accuracies known, correlation unknown (arXiv 2403.17515, Section 3).

    P(t = 1) = 1/2, P(s1 = t | t) = alpha, P(s2 = t | t) = beta. A world is its rho = P(both are
    right). One firm's history says nothing about rho; both histories together reveal it.

    Args:
        alpha, beta: accuracies of firm 1 and firm 2, in [0, 1].
        worlds: (weight, rho) each; max(0, alpha + beta - 1) <= rho <= min(alpha, beta).
        R, C: (R0, R1) and (C0, C1).
        gamma: share kept when both act alike.

    Raises:
        FedpactError: a number is out of its range.

    >>> len(correlation("4/5", "7/10", [(1, "14/25")]).cells)
    4
    """
    a, b = _share(alpha, "alpha"), _share(beta, "beta")
    low, high = max(Fraction(0), a + b - 1), min(a, b)
    built = []
    for number, (weight, rho) in enumerate(worlds):
        both = fraction(rho, f"worlds[{number}].rho")
        if not low <= both <= high:
            raise FedpactError(
                f"worlds[{number}].rho is {both}; with accuracies {a} and {b} both firms are right "
                f"with a probability from {low} to {high}. For independent errors write {a * b}."
            )
        right = {(1, 1): both, (1, 0): a - both, (0, 1): b - both, (0, 0): 1 - a - b + both}
        instance = {
            (t, t if one else 1 - t, t if two else 1 - t): mass / 2
            for t in (0, 1)
            for (one, two), mass in right.items()
        }
        history: Mapping[History, Fraction] = {("", "", number): Fraction(1)}
        built.append(World(_weight(weight, number), instance, history))
    return _setting(built, R, C, gamma)


def hypotheses(
    p: Any,
    kappa: Any,
    lam: Any,
    mu: Any,
    samples: Any = "infinite",
    R: Pair = (1, 1),
    C: Pair = (0, 0),
    gamma: Any = Fraction(1, 2),
) -> Setting:
    """Two hypotheses, one firm with a structural advantage (arXiv 2403.17515, Section 4).

    kappa = P(t = 1). Firm 1 sees A or B, firm 2 sees a or b (A and a are signal 1). Hypothesis I
    (prior p): t = 1 gives (A, a); t = 0 gives (A, b) with probability lam, (B, a) with mu, else
    (B, b). Hypothesis II: t = 1 gives (B, a); t = 0 gives (A, a) with mu, (A, b) with lam, else
    (B, b).

    Args:
        p, kappa, lam, mu: in [0, 1]; lam + mu <= 1.
        samples: "infinite" (firm 1 learns the hypothesis, firm 2 nothing), or n labelled instances
            that both firms see, each with its own signal: z1 = ((t, s1), ...), z2 = ((t, s2), ...).

    Raises:
        FedpactError: a number is out of its range.
    """
    prior, one = _share(p, "p"), _share(kappa, "kappa")
    left, right = _share(lam, "lambda"), _share(mu, "mu")
    if left + right > 1:
        raise FedpactError(
            f"lambda + mu is {left + right}; legal is at most 1: they are probabilities of two of "
            "three cases. Lower one of them."
        )
    zero, rest = 1 - one, 1 - left - right
    laws: tuple[dict[Instance, Fraction], ...] = (
        {(1, 1, 1): one, (0, 1, 0): zero * left, (0, 0, 1): zero * right, (0, 0, 0): zero * rest},
        {(1, 0, 1): one, (0, 1, 1): zero * right, (0, 1, 0): zero * left, (0, 0, 0): zero * rest},
    )
    if samples == "infinite":
        seen: list[Mapping[History, Fraction]] = [
            {(name, "", ""): Fraction(1)} for name in ("I", "II")
        ]
    else:
        seen = [_sampled(law, _count(samples)) for law in laws]
    worlds = [
        World(weight, law, history)
        for weight, law, history in zip((prior, 1 - prior), laws, seen, strict=True)
    ]
    return _setting(worlds, R, C, gamma)


def table(
    joint: Sequence[Sequence[Sequence[Any]]],
    prior: Mapping[str, Any] | None = None,
    R: Pair = (0, 1),
    C: Pair = (0, 1),
    gamma: Any = Fraction(1, 2),
) -> Setting:
    """A measured joint table, with a prior over how the two firms' errors are coupled.

    The margins P(t, s1) and P(t, s2) are known; each coupling with positive weight is a world, and
    only both histories together reveal which.

    Args:
        joint: P(t, s1, s2) or counts, shape (2, k1, k2).
        prior: coupling -> weight; couplings given t are `measured` (the table itself),
            `independent`, `strongest` and `weakest` (the Frechet bounds). Default: measured.

    Raises:
        FedpactError: the table is no distribution, or a coupling is unknown.
    """
    measured = _normal(joint)
    weights = prior if prior is not None else {"measured": 1}
    worlds = []
    for number, (name, weight) in enumerate(weights.items()):
        if name not in COUPLINGS:
            raise FedpactError(
                f"prior has the coupling {name!r}; legal are {', '.join(COUPLINGS)}."
            )
        history: Mapping[History, Fraction] = {("", "", name): Fraction(1)}
        worlds.append(World(_weight(weight, number), _coupled(measured, name), history))
    return _setting(worlds, R, C, gamma)


def told(
    joint: Sequence[Sequence[Sequence[Any]]],
    keeps: Sequence[Any],
    models: bool = True,
    prior: Mapping[str, Any] | None = None,
    R: Pair = (0, 1),
    C: Pair = (0, 1),
    gamma: Any = Fraction(1, 2),
) -> Setting:
    """A measured joint table where each firm tells its signal by randomised response.

    A world is a coupling and a pair of told signals, which both firms know where both see z1 and z2
    (`{"firm1": ["z2"], "firm2": ["z1"]}`): the contract under which signals are told. Under
    no_sharing nothing is told. Other contracts mean nothing here.

    Args:
        joint, prior: see `table`.
        keeps: probability of each firm that its told signal is the true one; every other is as
            likely as the next.
        models: models are shared too, so that the firms know the coupling.

    Raises:
        FedpactError: the table is no distribution, a coupling is unknown, or a probability is none.
    """
    plain = table(joint, prior, R, C, gamma)
    listed = isinstance(keeps, list | tuple) and len(keeps) == 2
    if not listed or not isinstance(models, bool):
        raise FedpactError(
            f"keeps is {keeps!r}, models {models!r}; legal are two probabilities, one a firm, and "
            "true or false."
        )
    sizes = (len(joint[0]), len(joint[0][0]))
    noise = [_response(_share(keep, "keeps"), k) for keep, k in zip(keeps, sizes, strict=True)]
    worlds = []
    for world in plain.worlds:
        ((*_, coupling),) = world.history
        for pair in product(*map(range, sizes)):
            masses = {
                (t, x, y): mass * noise[0][x][pair[0]] * noise[1][y][pair[1]]
                for (t, x, y), mass in world.instance.items()
            }
            total = sum(masses.values(), Fraction(0))
            if total:
                known = f"told {pair[0]}, {pair[1]}" + (f", {coupling}" if models else "")
                instance = {key: mass / total for key, mass in masses.items()}
                history: Mapping[History, Fraction] = {("", "", known): Fraction(1)}
                worlds.append(World(world.weight * total, instance, history))
    return Setting(tuple(worlds), plain.rewards, plain.costs, plain.gamma)


def _response(keep: Fraction, k: int) -> list[list[Fraction]]:
    """P(told | true), (k, k)."""
    other = (1 - keep) / (k - 1) if k > 1 else Fraction(0)
    return [
        [(keep if k > 1 else Fraction(1)) if x == n else other for n in range(k)] for x in range(k)
    ]


def _setting(worlds: Sequence[World], R: Pair, C: Pair, gamma: Any) -> Setting:
    possible = tuple(w for w in worlds if w.weight)
    return Setting(possible, _two(R, "R"), _two(C, "C"), fraction(gamma, "gamma"))


def _two(pair: Pair, name: str) -> tuple[Fraction, Fraction]:
    if isinstance(pair, str) or len(pair) != 2:
        raise FedpactError(
            f"{name} is {pair!r}; legal are two numbers, for action 0 and action 1: "
            f"{name}=[{name}0, {name}1]."
        )
    return fraction(pair[0], f"{name}[0]"), fraction(pair[1], f"{name}[1]")


def _share(value: Any, name: str) -> Fraction:
    number = fraction(value, name)
    if not 0 <= number <= 1:
        raise FedpactError(
            f'{name} is {number}; legal is a probability, 0 to 1. Write 80 % as "4/5".'
        )
    return number


def _weight(value: Any, number: int) -> Fraction:
    return _share(value, f"the weight of world {number}")


def _count(samples: Any) -> int:
    whole = isinstance(samples, int) and not isinstance(samples, bool)
    if not whole or not 0 <= samples <= MOST_SAMPLES:
        raise FedpactError(
            f'samples is {samples!r}; legal are "infinite" and 0 to {MOST_SAMPLES} labelled '
            f"instances: n of them have up to 8**n histories, all of which are enumerated."
        )
    return int(samples)


def _sampled(law: Mapping[Instance, Fraction], count: int) -> dict[History, Fraction]:
    """P(z1, z2) of n paired labelled instances, each firm with its own signals."""
    drawn: dict[History, Fraction] = {}
    for instances in product([i for i, mass in law.items() if mass], repeat=count):
        probability = Fraction(1)
        for instance in instances:
            probability *= law[instance]
        z1 = tuple((t, s1) for t, s1, _ in instances)
        z2 = tuple((t, s2) for t, _, s2 in instances)
        drawn[z1, z2, ""] = drawn.get((z1, z2, ""), Fraction(0)) + probability
    return drawn


def _normal(joint: Sequence[Sequence[Sequence[Any]]]) -> dict[Instance, Fraction]:
    shapes = {(len(plane), len(row)) for plane in joint for row in plane}
    if len(joint) != 2 or len(shapes) != 1 or 0 in next(iter(shapes)):
        raise FedpactError(
            f"table has {len(joint)} classes and rows of shapes {sorted(shapes)}; legal is shape "
            "(2, k1, k2): class, signal of firm 1, signal of firm 2."
        )
    cells = {
        (t, x, y): fraction(value, f"table[{t}][{x}][{y}]")
        for t, plane in enumerate(joint)
        for x, row in enumerate(plane)
        for y, value in enumerate(row)
    }
    total = sum(cells.values(), Fraction(0))
    counted = all(v.denominator == 1 for v in cells.values())
    if min(cells.values()) < 0 or not total or not (counted or abs(total - 1) < Fraction(1, 10**6)):
        raise FedpactError(
            f"table sums to {float(total):g} and its least entry is {float(min(cells.values())):g};"
            " legal are counts, or probabilities >= 0 that sum to 1."
        )
    return {key: value / total for key, value in cells.items()}


def _coupled(measured: Mapping[Instance, Fraction], name: str) -> dict[Instance, Fraction]:
    """The table with the same P(t, s1) and P(t, s2), coupled as named given t."""
    if name == "measured":
        return dict(measured)
    k1, k2 = (1 + max(key[axis] for key in measured) for axis in (1, 2))
    coupled: dict[Instance, Fraction] = {}
    for t in (0, 1):
        one = [sum((measured[t, x, y] for y in range(k2)), Fraction(0)) for x in range(k1)]
        two = [sum((measured[t, x, y] for x in range(k1)), Fraction(0)) for y in range(k2)]
        mass = sum(one, Fraction(0))

        for x, y in product(range(k1), range(k2)):
            if name == "independent":
                coupled[t, x, y] = one[x] * two[y] / mass if mass else Fraction(0)
            else:
                corner = [
                    [_bound(one[:i], two[:j], mass, name) for j in (y, y + 1)] for i in (x, x + 1)
                ]
                coupled[t, x, y] = corner[1][1] - corner[0][1] - corner[1][0] + corner[0][0]
    return coupled


def _bound(one: Sequence[Fraction], two: Sequence[Fraction], mass: Fraction, name: str) -> Fraction:
    """The Frechet bound of P(t, s1 < i, s2 < j), from the margins up to there."""
    first, second = sum(one, Fraction(0)), sum(two, Fraction(0))
    if name == "strongest":
        return min(first, second)
    return max(Fraction(0), first + second - mass)
