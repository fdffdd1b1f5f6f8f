"""Settings for tests: the golden rows, and random small ones."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from server.game.settings import correlation
from server.game.worlds import Setting, World

F = Fraction
ROWS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "golden" / "contracts.json").read_text()
)
ROW = {row["id"]: row for row in ROWS}
SHARES = [F(0), F(1, 4), F(1, 2), F(3, 4), F(1)]


@st.composite
def finite_settings(
    draw: st.DrawFn, histories: int = 2, signals: int = 2, worlds: int = 2
) -> Setting:
    """Any finite setting of two firms, cells of probability zero included."""
    weights = st.integers(0, 4)
    built = []
    prior = draw(st.lists(st.integers(1, 3), min_size=worlds, max_size=worlds))
    for weight in prior:
        z = draw(st.lists(weights, min_size=histories**2, max_size=histories**2))
        cells = draw(st.lists(weights, min_size=2 * signals**2, max_size=2 * signals**2))
        z[0] += 1
        cells[0] += 1
        built.append(
            World(
                F(weight, sum(prior)),
                {
                    (t, x, y): F(cells[(t * signals + x) * signals + y], sum(cells))
                    for t in (0, 1)
                    for x in range(signals)
                    for y in range(signals)
                },
                {
                    (a, b, ""): F(z[a * histories + b], sum(z))
                    for a in range(histories)
                    for b in range(histories)
                },
            )
        )
    money = st.integers(0, 6).map(lambda n: F(n, 2))
    rewards, costs = draw(st.tuples(money, money)), draw(st.tuples(money, money))
    return Setting(tuple(built), rewards, costs, draw(st.sampled_from(SHARES)))


def swapped(setting: Setting) -> Setting:
    """The same setting with the firms' names exchanged."""
    worlds = tuple(
        World(
            w.weight,
            {(t, y, x): mass for (t, x, y), mass in w.instance.items()},
            {(b, a, pair): mass for (a, b, pair), mass in w.history.items()},
        )
        for w in setting.worlds
    )
    return Setting(worlds, setting.rewards, setting.costs, setting.gamma)


def between(rng: random.Random, low: Fraction, high: Fraction, steps: int = 1000) -> Fraction:
    """A random fraction strictly inside an interval."""
    return low + (high - low) * F(rng.randint(1, steps - 1), steps)


def random_point(rng: random.Random) -> dict[str, Any]:
    """A random point of the correlation setting with two worlds: a significant action."""
    beta = between(rng, F(1, 2), F(1))
    alpha = between(rng, beta, F(1))
    low, high = alpha + beta - 1, beta
    weight = between(rng, F(0), F(1), 100)
    return {
        "alpha": alpha,
        "beta": beta,
        "rho": [between(rng, low, high, 100), between(rng, low, high, 100)],
        "weight": [weight, 1 - weight],
        "R": between(rng, F(1, 2), F(2), 100),
        "C": between(rng, F(0), F(4), 100),
        "gamma": between(rng, F(0), F(1), 100),
    }


def setting_at(point: dict[str, Any]) -> Setting:
    """The exact setting of such a point."""
    worlds = list(zip(point["weight"], point["rho"], strict=True))
    reward, cost = (0, point["R"]), (0, point["C"])
    return correlation(point["alpha"], point["beta"], worlds, reward, cost, point["gamma"])
