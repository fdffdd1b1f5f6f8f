"""table.csv and report.html of a campaign on measures of reuse, from its history.csv."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import rankdata

from parties.exchange import Array
from parties.files import write_whole
from parties.reuse import ReuseMeasure
from simulations.page import INK, number, render, svg
from simulations.results import RunFolder

RECOVERABLE = 0.85  # accuracy of new and of retrained models, where a shift leaves enough to learn
BLIND = "rotation_180"
MARGINS = (
    0.01,
    0.02,
    0.03,
    0.05,
    0.1,
)  # how the answer depends on when a model counts as retrained
SHOWN = ("arm", "arm_raw", "frechet", "preindex", "resque", "zero_shot_error")
KINDS = ("noise", "blur", "contrast", "brightness", "inversion", "rotation", "salt", "occlusion")
COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#8C8C8C", "#CC79A7", "#D55E00", "#E69F00", "#7A5195")


def correlations(values: Array, outcome: Array) -> Array:
    """Spearman's and Pearson's coefficient of each column with the outcome, (2, columns).

    Args:
        values: (n, columns). outcome: (n,). NaN where either does not vary.

    >>> correlations(np.array([[1.0], [2.0], [9.0]]), np.array([0.0, 1.0, 2.0])).round(3)
    array([[1.   ],
           [0.918]])
    """
    ranked = _pearson(rankdata(values, axis=0), rankdata(outcome))
    return np.stack([ranked, _pearson(values, outcome)])


def _pearson(values: Array, outcome: Array) -> Array:
    x, y = values - values.mean(axis=0), outcome - outcome.mean()
    sizes = np.linalg.norm(x, axis=0) * np.linalg.norm(y)
    found: Array = np.divide(y @ x, sizes, out=np.full(x.shape[1], np.nan), where=sizes > 0)
    return found


def table_of(
    history: pd.DataFrame,
    curves: pd.DataFrame,
    measures: Mapping[str, ReuseMeasure],
    resamples: int,
) -> pd.DataFrame:
    """A row a measure: how it goes with the epochs of retraining, and what it costs.

    Every value is turned so that a larger one should mean more epochs. `all` are all pairs,
    `recoverable` those where a new model reaches an accuracy of 0.85, and retraining does, too (it
    may never get going: its ceiling is chance then, and it is there without an epoch). Intervals
    are the middle 95 % over resamples of the models, drawn with replacement.

    Returns:
        Columns measure, forecasts, labels; {all, recoverable}_{spearman, pearson}{"", _low,
        _high}; Spearman with the epochs of recoverable pairs: within (mean over the models),
        sighted (without half a turn), at_<margin> (epochs to within another margin of the ceiling,
        from the curves); ceiling (Spearman with the ceiling, all); ms (median CPU milliseconds),
        epoch_share (median share of one epoch's CPU seconds).
    """
    names = list(measures)
    signs = np.array([-1.0 if m.higher_is_better else 1.0 for m in measures.values()])
    scopes = {"all": history, "recoverable": _recoverable(history)}
    found: dict[str, Any] = {
        "measure": names,
        "forecasts": [m.forecasts for m in measures.values()],
        "labels": [m.needs_labels for m in measures.values()],
    }
    for scope, rows in scopes.items():
        values, outcome = rows[names].to_numpy(float) * signs, rows["epochs"].to_numpy(float)
        drawn = _resampled(rows["model"].to_numpy(), values, outcome, resamples)
        for place, kind in enumerate(("spearman", "pearson")):
            found[f"{scope}_{kind}"] = _both(values, outcome)[place]
            found[f"{scope}_{kind}_low"], found[f"{scope}_{kind}_high"] = drawn[:, place]
    inner = scopes["recoverable"]
    each = [
        _both(part[names].to_numpy(float) * signs, part["epochs"].to_numpy(float))[0]
        for _, part in inner.groupby("model")
    ]
    found["within"] = pd.DataFrame(each, columns=names).mean().to_numpy() if each else np.nan
    sighted = inner[inner["shift"] != BLIND]
    found["sighted"] = _both(sighted[names].to_numpy(float) * signs, sighted["epochs"].to_numpy())[
        0
    ]
    kept = curves[curves["run"] == "kept"].set_index("case").loc[inner["case"]]
    readings = kept.drop(columns=["run", "cpu_seconds_epoch"]).to_numpy(float)
    for margin in MARGINS:
        there = readings >= readings.max(axis=1, keepdims=True, initial=0) - margin - 1e-9
        outcome = there.argmax(axis=1) / 4
        found[f"at_{margin}"] = _both(inner[names].to_numpy(float) * signs, outcome)[0]
    ceiling = history["ceiling"].to_numpy(float)
    found["ceiling"] = _both(history[names].to_numpy(float) * signs, ceiling)[0]
    times = history[[f"{name}_ms" for name in names]].to_numpy(float)
    found["ms"] = np.median(times, axis=0)
    epochs = 1000 * history["cpu_seconds_epoch"].to_numpy(float)
    found["epoch_share"] = np.median(times / epochs[:, None], axis=0)
    return pd.DataFrame(found)


def _recoverable(history: pd.DataFrame) -> pd.DataFrame:
    both = (history["scratch_accuracy"] >= RECOVERABLE) & (history["ceiling"] >= RECOVERABLE)
    return history[both]


def _both(values: Array, outcome: Array) -> Array:
    if len(outcome) < 2:
        return np.full((2, values.shape[1]), np.nan)
    return correlations(values, outcome)


def _resampled(models: Array, values: Array, outcome: Array, resamples: int) -> Array:
    """Ends of the middle 95 %, (2, 2 coefficients, columns)."""
    rng = np.random.default_rng(0)
    rows = {m: np.flatnonzero(models == m) for m in np.unique(models)}
    if len(rows) < 2:
        return np.full((2, 2, values.shape[1]), np.nan)
    names = list(rows)
    draws = []
    for _ in range(resamples):
        taken = np.concatenate([rows[names[i]] for i in rng.integers(0, len(names), len(names))])
        draws.append(_both(values[taken], outcome[taken]))
    ends: Array = np.quantile(np.stack(draws), (0.025, 0.975), axis=0)
    return ends


def facts_of(history: pd.DataFrame) -> list[str]:
    """What else the history says, a sentence each."""
    half = history[history["shift"] == BLIND]
    error = (history["arm_card"] / history["arm"] - 1).abs()
    clear = error[history["arm"] > 5 * history["floor"]]
    taken = history["epochs"].sum(), history["scratch_epochs"].sum()
    both = history["scratch_epochs"].notna()
    cheaper = (history["epochs"] < history["scratch_epochs"]) | ~both
    said = [
        f"Retraining took {history['epochs'].mean():.2f} epochs on average, and fewer than a new "
        f"model in {100 * cheaper.mean():.0f} % of the pairs; in {100 * (~both).mean():.0f} % the "
        "new model never got as far.",
    ]
    if both.any() and taken[1] > 0:
        saved = 1 - history.loc[both, "epochs"].sum() / taken[1]
        said.append(f"Where both got there, retraining saved {100 * saved:.0f} % of the epochs.")
    stuck = (history["scratch_accuracy"] >= RECOVERABLE) & (history["ceiling"] < RECOVERABLE)
    if stuck.any():
        said.append(
            f"Where a new model reaches {RECOVERABLE}, retraining never did for "
            f"{', '.join(history.loc[stuck, 'case'])}: not among the recoverable."
        )
    said.append(
        f"ARM from the card is {100 * error.median():.2f} % off the exact one (median; at most "
        f"{100 * error.max():.1f} %, {100 * clear.max():.1f} % where ARM is over five times its "
        f"floor). Cards have {history['card_bytes'].min():,} to {history['card_bytes'].max():,} "
        "bytes."
    )
    if len(half) and len(half) < len(history):
        arm, epochs = half["arm"].mean(), half["epochs"].mean()
        above, longer = (
            100 * (history[k] > v).mean() for k, v in (("arm", arm), ("epochs", epochs))
        )
        said.append(
            f"Half a turn (180 degrees): ARM is {arm:.3f} on average, and more in {above:.0f} % of "
            f"all pairs; retraining takes {epochs:.2f} epochs, and more in {longer:.0f} %."
        )
    return said


def write_report(
    folder: RunFolder, measures: Mapping[str, ReuseMeasure], resamples: int
) -> list[str]:
    """Write table.csv and report.html; what a person should read on the screen, a line each."""
    history = pd.read_csv(folder.path / "history.csv")
    curves = pd.read_csv(folder.path / "curves.csv")
    table = table_of(history, curves, measures, resamples)
    write_whole(folder.path / "table.csv", table.to_csv(index=False).encode())
    facts = facts_of(history)
    content = {
        "name": "arm_digits",
        "rows": table.to_dict("records"),
        "cases": len(history),
        "recoverable": len(_recoverable(history)),
        "models": history["model"].nunique(),
        "facts": facts,
        "margins": MARGINS,
        "picture": svg(lambda: _drawn(history, measures), {"font.size": 8.5}, "arm"),
        "provenance": (folder.path / "provenance.json").read_text("utf-8"),
        "config": (folder.path / "config.yaml").read_text("utf-8"),
    }
    write_whole(folder.path / "report.html", render("campaigns/arm.html", content))
    return [*_lines(table), *_by_margin(table), *facts, f"Report   {folder.path / 'report.html'}"]


def _lines(table: pd.DataFrame) -> list[str]:
    head = f"{'Spearman / Pearson with epochs':32}{'all':>14}{'recoverable':>14}{'95 %':>14}"
    lines = [f"{head}{'within':>8}{'ceiling':>9}{'labels':>8}{'ms':>7}{'of an epoch':>13}"]
    for row in table.to_dict("records"):
        pairs = [
            f"{_short(row[f'{s}_spearman'])} / {_short(row[f'{s}_pearson'])}"
            for s in ("all", "recoverable")
        ]
        interval = [_short(row[f"recoverable_spearman_{end}"]) for end in ("low", "high")]
        lines.append(
            f"{row['measure']:32}{pairs[0]:>14}{pairs[1]:>14}{' to '.join(interval):>14}"
            f"{_short(row['within']):>8}{_short(row['ceiling']):>9}"
            f"{'yes' if row['labels'] else 'no':>8}{row['ms']:>7.1f}{row['epoch_share']:>13.2f}"
        )
    return lines


def _by_margin(table: pd.DataFrame) -> list[str]:
    """Spearman of the measures that are drawn, by what counts as being at the ceiling."""
    lines = ["Recoverable, by the margin below the ceiling" + "".join(f"{m:>8}" for m in MARGINS)]
    for row in table[table["measure"].isin(SHOWN)].to_dict("records"):
        told = "".join(f"{_short(row[f'at_{m}']):>8}" for m in MARGINS)
        lines.append(f"{row['measure']:44}{told}")
    return lines


def _short(value: float) -> str:
    return number(value, digits=2).replace("0.", ".", 1)


def _drawn(history: pd.DataFrame, measures: Mapping[str, ReuseMeasure]) -> Figure:
    """Epochs against six measures, a dot a pair."""
    shown = [name for name in SHOWN if name in measures]
    figure = Figure(figsize=(9.2, 5.6), layout="constrained")
    panels = figure.subplots(2, 3, sharey=True).ravel()
    for panel, name in zip(panels, shown, strict=True):
        for kind, part in history.groupby("kind"):
            known = str(kind) in KINDS
            panel.scatter(
                part[name],
                part["epochs"],
                s=11,
                color=COLOURS[KINDS.index(str(kind))] if known else INK,
                label=str(kind),
                linewidths=0,
            )
        panel.set_xlabel(name)
        panel.spines[["top", "right"]].set_visible(False)
    figure.supylabel("epochs of retraining to the ceiling", size=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", title="kind of shift")
    return figure
