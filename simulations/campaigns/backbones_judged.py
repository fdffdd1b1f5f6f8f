"""What measured rows mean: what a firm would reuse on each data set, and how good forecasts are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pandas as pd
from scipy import stats

from parties.exchange import Array
from simulations.campaigns.backbones_scores import SCORES
from simulations.compare import half_width

PIXELS = "pixels"
FORECASTS = ("forecast", *SCORES, "leep")
CANDIDATE = ["backbone", "stage"]
ALL, CENTRED = "all", "all, each less its data set's mean"
STRICT = 1.645  # standard errors by which a forecast must beat the pixels': 5 % by chance
RESAMPLES = 2_000
FEWEST = 5  # candidates of which a rank correlation is shown


@final
@dataclass(frozen=True)
class Judged:
    """What came out.

    Args:
        table: a row a data set, network, weights and stage: means over draws.
        forecasts: a row a forecast and data set: its rank correlation with accuracy.
        choices: a row a data set and draw: what the judge would reuse, and what came of it.
    """

    table: pd.DataFrame
    forecasts: pd.DataFrame
    choices: pd.DataFrame

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """File name -> table."""
        return {"table": self.table, "forecasts": self.forecasts, "choices": self.choices}


def judged(rows: pd.DataFrame, offered: str, seed: int) -> Judged:
    """Summarise measured rows.

    Args:
        rows: a row a data set, network, weights, stage and draw.
        offered: the weights that the judge chooses among.
        seed: decides the resamples.
    """
    table = _table(rows)
    candidates, offers = (t[t["weights"].isin(["none", offered])] for t in (table, rows))
    choices = [
        _choice(part, candidates[candidates["data"] == data])
        for (data, _), part in offers.groupby(["data", "draw"], sort=False)
    ]
    return Judged(table, _forecasts(candidates, offers, seed), pd.DataFrame(choices))


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over draws, and differences to the pixels and to the random copy, draw by draw."""
    groups = rows.groupby(["data", "weights", *CANDIDATE], sort=False)
    accuracy = {key: part.set_index("draw")["accuracy"] for key, part in groups}
    found = []
    for key, part in groups:
        data, weights, backbone, stage = key
        mine = accuracy[key]
        row: dict[str, Any] = {"data": data, "backbone": backbone, "weights": weights}
        row |= {"stage": stage, "numbers": int(part["numbers"].iloc[0]), "draws": len(part)}
        row |= {"accuracy": mine.mean(), "accuracy_sd": mine.std()}
        for name, other in (
            (PIXELS, (data, "none", PIXELS, PIXELS)),
            ("random", (data, "untrained", backbone, stage)),
        ):
            gap = mine - accuracy[other] if other in accuracy else mine * np.nan
            row[f"over_{name}"] = gap.mean()
            row[f"over_{name}_half_width"] = half_width(gap.to_numpy())
        row |= {name: part[name].mean() for name in FORECASTS}
        found.append(row)
    return pd.DataFrame(found)


def _choice(offers: pd.DataFrame, means: pd.DataFrame) -> dict[str, Any]:
    """One firm, one draw: the stage it is offered, whether it reuses it, and what that gives."""
    networks = offers[offers["backbone"] != PIXELS]
    own = offers[offers["backbone"] == PIXELS].iloc[0]
    order = networks.sort_values(["forecast", "numbers"], ascending=[False, True], kind="stable")
    pick = order.iloc[0]
    reuse = bool(pick["margin"] > STRICT * pick["margin_error"])
    best = means.sort_values("accuracy", kind="stable").iloc[-1]
    mine = offers[(offers[CANDIDATE] == best[CANDIDATE]).all(axis=1)].iloc[0]
    return {
        **{k: pick[k] for k in ("data", "draw", *CANDIDATE)},
        "reuse": reuse,
        **{k: pick[k] for k in ("forecast", "margin", "margin_error")},
        "accuracy": pick["accuracy"],
        "pixels": own["accuracy"],
        "gain": (pick["accuracy"] - own["accuracy"]) if reuse else 0.0,
        "right": reuse == bool(pick["accuracy"] > own["accuracy"]),
        "lost": mine["accuracy"] - (pick["accuracy"] if reuse else own["accuracy"]),
    }


def _forecasts(candidates: pd.DataFrame, offers: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Spearman's rank correlation of every forecast with measured accuracy, over candidates.

    Of means over draws; and, since a firm has one draw only, of a single draw, averaged over draws.
    """
    sets = list(dict.fromkeys(candidates["data"]))
    found = []
    for place, name in enumerate(FORECASTS):
        seen = candidates.dropna(subset=[name])
        pairs = {d: seen.loc[seen["data"] == d, [name, "accuracy"]].to_numpy() for d in sets}
        centred = {d: pair - pair.mean(0) for d, pair in pairs.items() if len(pair)}
        asked = {d: [pairs[d]] for d in sets}
        if len(sets) > 1:
            asked |= {ALL: list(pairs.values()), CENTRED: list(centred.values())}
        for data, parts in asked.items():
            rng = np.random.default_rng([seed, place])
            value, low, high = correlation(parts, rng)
            count = sum(map(len, parts))
            row = {"forecast": name, "data": data, "candidates": count, "spearman": value}
            single = [
                _spearman(part.dropna(subset=[name])[[name, "accuracy"]].to_numpy()[None])[0]
                for _, part in offers[offers["data"] == data].groupby("draw")
                if part[name].count() >= FEWEST
            ]
            one = float(np.mean(single)) if single else np.nan
            # Layers of a network depend on each other, draws do not.
            error = half_width(np.array(single)) if len(single) > 1 else np.nan
            told = {"one_draw": one, "one_draw_half_width": error}
            found.append({**row, "low": low, "high": high, **told})
    return pd.DataFrame(found)


def correlation(
    parts: Sequence[Array], rng: np.random.Generator, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """Spearman's rank correlation of pairs, with its 95 % bootstrap interval (percentiles).

    Args:
        parts: (n, 2) pairs of each data set; pairs are resampled within their data set.

    Returns:
        The correlation, low and high; not-a-number for fewer than FEWEST pairs.
    """
    if sum(map(len, parts)) < FEWEST:
        return (np.nan,) * 3
    kept = [part for part in parts if len(part)]
    again = [part[rng.integers(0, len(part), (resamples, len(part)))] for part in kept]
    low, high = np.nanpercentile(_spearman(np.concatenate(again, 1)), [2.5, 97.5])
    return float(_spearman(np.concatenate(kept)[None])[0]), float(low), float(high)


def _spearman(pairs: Array) -> Array:
    """Rank correlations (m,) of m samples (m, n, 2); not-a-number where one side is constant."""
    ranks = stats.rankdata(pairs, axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    both = (ranks**2).sum(1).prod(1)
    found: Array = ranks.prod(2).sum(1) / np.sqrt(np.where(both > 0, both, np.nan))
    return found


def answers(found: Judged) -> list[dict[str, Any]]:
    """A row a data set: what the judge says in most draws, and what came of it over all draws."""
    rows = []
    for data, part in found.choices.groupby("data", sort=False):
        reused = part[part["reuse"]]
        counts = (reused if len(reused) else part).value_counts(CANDIDATE, sort=True)
        (backbone, stage), often = counts.index[0], int(counts.iloc[0])
        table = found.table[found.table["data"] == data]
        offered = table[table["backbone"].isin([PIXELS, *part["backbone"]])]
        rows.append(
            {
                "data": data,
                "draws": len(part),
                "reuse": len(reused),
                "decision": "signs" if 2 * len(reused) > len(part) else "refuses",
                "backbone": backbone,
                "stage": stage,
                "often": often,
                "pixels": float(part["pixels"].mean()),
                "gain": float(part["gain"].mean()),
                "half_width": half_width(part["gain"].to_numpy(dtype=float)),
                "right": int(part["right"].sum()),
                "lost": float(part["lost"].mean()),
                "numbers": int(offered["numbers"].iloc[0]),
            }
        )
    return rows


def told(found: Judged) -> list[str]:
    """What a person should read on the screen."""
    lines = []
    for row in answers(found):
        data, draws = row["data"], row["draws"]
        if row["decision"] == "signs":
            text = f"reuse {row['backbone']} {row['stage']} ({row['often']} of {draws} draws"
            text += f"; some network in {row['reuse']})"
        else:
            text = f"reuse does not pay (a network is taken in {row['reuse']} of {draws} draws)"
        gain = f"{row['gain']:+.3f} ± {row['half_width']:.3f} over pixels {row['pixels']:.3f}"
        lines.append(f"{data:14} {text}: {gain}, {row['lost']:.3f} below the best in hindsight")
    ours = found.forecasts[found.forecasts["forecast"] == "forecast"]
    for _, it in ours.iterrows():
        value = f"{it['spearman']:.2f} [{it['low']:.2f}, {it['high']:.2f}]"
        half = f"{it['one_draw']:.2f} ± {it['one_draw_half_width']:.2f}"
        one = "" if np.isnan(it["one_draw"]) else f"; of one draw {half}"
        lines.append(f"Spearman of forecast and accuracy, {it['data']}: {value}{one}")
    return lines
