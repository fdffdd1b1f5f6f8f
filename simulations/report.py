"""One self-contained page on a finished run: the verdict first, then what it rests on."""

from __future__ import annotations

import io
import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from parties.exchange import Array
from parties.files import digest, write_whole
from server.outcome import Outcome
from server.transport import OPERATOR
from server.verdict import BASELINE, interval_name
from simulations.conclude import outcomes_of
from simulations.page import INK, number, render, svg, with_own_ids
from simulations.prices import price_lines
from simulations.privacy import noise_lines
from simulations.results import RunFolder
from simulations.study import Study
from simulations.worth import worth

# Okabe and Ito's palette; its green and vermilion are kept for decisions.
BLUE, *OTHERS = ("#0072B2", "#E69F00", "#CC79A7", "#56B4E9")
DECISIONS = {"signs": "#009E73", "refuses": "#D55E00", "undecided": "#8C8C8C"}
MARKERS, LINES = "os^Dv", ("-", "--", "-.", ":")
GUIDE: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": (0, (3, 3))}
MOST = 12  # firms that are drawn or named one by one
STYLE: dict[Any, Any] = {"font.size": 9, "axes.titlesize": 9.5, "lines.markersize": 4.5}
STYLE |= dict.fromkeys(("axes.spines.top", "axes.spines.right"), False)

Panel = tuple[str, Markup]
"""What a drawing shows, in words, and the drawing."""


def write_report(study: Study, folder: RunFolder, verdict: Mapping[str, Any]) -> Path:
    """Write report.html: one file that needs no network, no script and no other file."""
    path = folder.path / "report.html"
    write_whole(path, render("report.html", _content(study, folder, verdict)))
    return path


def _content(study: Study, folder: RunFolder, verdict: Mapping[str, Any]) -> dict[str, Any]:
    outcomes, _ = outcomes_of(study, folder)
    origin = json.loads(_text(folder, "provenance.json") or "{}")
    contracts, firms = verdict["contracts"], verdict["firms"]
    return {
        "verdict": verdict,
        "level": interval_name(verdict["interval"]),
        "study": study,
        "baseline": BASELINE,
        "most": MOST,
        "sees": dict.fromkeys(w for c in contracts.values() for w in c["operator_sees"]),
        "scores": sorted({name for scores in verdict["scores"].values() for name in scores}),
        "left_out": _left_out(outcomes),
        "adoptions": _adoptions(_table(folder, "adoptions.csv")),
        "prices": price_lines(verdict),
        "noise": noise_lines(verdict),
        "money": _money(contracts),
        "clients": next(
            (c["posterior"]["clients"] for c in contracts.values() if c["posterior"]), 0
        ),
        "payoffs": _payoff_panels(contracts, firms),
        "curves": _curve_panels(_table(folder, "rounds.csv"), firms),
        "worth": worth(_table(folder, "rounds.csv"), _table(folder, "seconds.csv")),
        "predicted": _predicted_panels(_table(folder, "payoffs.csv"), firms),
        "joint": _joint(study, outcomes),
        "messages": _messages(_table(folder, "messages.csv"), firms),
        "config": _text(folder, "config.yaml"),
        "provenance": json.dumps(origin, indent=2, ensure_ascii=False) if origin else "",
        "command": shlex.join(origin.get("command", [])).replace(
            "__main__.py", "python -m simulations", 1
        ),
        "version": origin.get("versions", {}).get("fedpact") or "",
    }


# ------------------------------------------------------------------------------ words and tables


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _money(contracts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Side payments and posterior probabilities of each contract but the baseline."""
    found = {}
    for name, contract in contracts.items():
        transfer, posterior = contract["transfer"], contract["posterior"]
        if name == BASELINE or transfer is None or posterior is None:
            continue
        low, high = transfer["interval"] or (0.0, 0.0)
        found[name] = {
            "transfer": transfer,
            "payer": transfer["payer"],
            "payee": transfer["payee"],
            "ends": (low, high),
            "nash": transfer["nash"],
            "rational": posterior["individually_rational"],
            "irpo": posterior["irpo"],
        }
    return found


def _left_out(outcomes: Iterable[Outcome]) -> Mapping[tuple[str, str, str, str], int]:
    """(contract, firm, what happened, why) -> under how many seeds."""
    return Counter(
        (o.contract, firm, what, reason)
        for o in outcomes
        for what, firms in (("refused the offer", o.declined), ("was left out", o.excluded))
        for firm, reason in firms.items()
    )


def _adoptions(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A row a contract, firm and decision: under how many seeds, and what it took on average."""
    if table.empty:
        return []
    found = []
    for keys, rows in table.groupby(["contract", "firm", "decision"], sort=False):
        contract, firm, decision = keys
        found.append(
            {
                "contract": contract,
                "firm": firm,
                "decision": decision,
                "seeds": len(rows),
                "probed": int((rows["probed"].astype(str) == "True").sum()),
                "passes": float(rows["passes"].mean()),
                "history": int(rows["history"].max()),
            }
        )
    return found


def _text(folder: RunFolder, name: str) -> str:
    path = folder.path / name
    return path.read_text("utf-8") if path.exists() else ""


def _table(folder: RunFolder, name: str) -> pd.DataFrame:
    """A table of the run; a firm called NA stays NA."""
    text = _text(folder, name)
    gaps = {column: ["", "nan"] for column in ("loss", "payoff", "predicted", "gain")}
    words = dict.fromkeys(("contract", "firm", "sender", "receiver", "kind", "carries"), str)
    if not text:
        return pd.DataFrame()
    return pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=gaps, dtype=words)


def _messages(messages: pd.DataFrame, firms: Sequence[str]) -> list[tuple[Any, ...]]:
    """Contract, sender, receiver, kind, arrays, how many and how many bytes, in order of use."""
    if messages.empty:
        return []
    known = messages["receiver"].isin([*firms, OPERATOR])
    tidy = messages.assign(receiver=messages["receiver"].where(known, "each node, by number"))
    keys = ["contract", "sender", "receiver", "kind", "carries"]
    sums = tidy.groupby(keys, sort=False)["bytes"].agg(["count", "sum"])
    return list(sums.reset_index().itertuples(index=False, name=None))


# --------------------------------------------------------------------------------------- figures


def _panel(label: str, height: float, draw: Callable[[Axes], None], width: float = 3.7) -> Panel:
    """Draw into a small SVG (inches) that takes its ink from the page and has ids of its own."""

    def drawn() -> Figure:
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        return figure

    key = f"f{digest(label.encode())[:8]}"
    return label, with_own_ids(svg(drawn, STYLE, key), key)


def _firm_style(place: int) -> dict[str, Any]:
    """Colour, marker and line: no two of the first twenty firms have the same."""
    colour = (BLUE, *OTHERS)[place % 4]
    return {"color": colour, "marker": MARKERS[place % 5], "linestyle": LINES[place // 4 % 4]}


def _legend(axes: Axes, lines: Sequence[Any], firms: Sequence[str]) -> None:
    if isinstance(axes.figure, Figure) and len(firms) <= MOST:
        names = [_short(firm, 18) for firm in firms]
        axes.figure.legend(lines, names, loc="outside lower center", ncols=2)


def _span(v: Mapping[str, Any]) -> Array:
    """The payoff, and the gain's interval laid around it, (3,); nan for none."""
    payoff, gain, low, high = np.array([v["payoff"], v["gain"], *v["interval"]], dtype=float)
    return np.array([payoff, payoff - gain + low, payoff - gain + high])


def _payoff_panels(contracts: Mapping[str, Any], firms: Sequence[str]) -> list[Panel]:
    """One panel a firm: its payoff under each contract, and the gain's interval."""
    ends = [_span(v) for c in contracts.values() for v in c["firms"].values()]
    low, high = np.nanmin([[0.0] * 3, *ends]), np.nanmax([[0.0] * 3, *ends])
    room = 0.04 * (high - low or 1.0)
    limits = (low - room * (low < 0), high + room * (high > 0))

    def panel(firm: str) -> Panel:
        rows = {name: contract["firms"][firm] for name, contract in contracts.items()}

        def draw(axes: Axes) -> None:
            for y, v in enumerate(rows.values()):
                payoff, *whisker = _span(v)
                axes.barh(y, payoff, 0.6, color=DECISIONS[v["decision"]], alpha=0.75)
                axes.plot(whisker, (y, y), color=INK, marker="|", markersize=8)
            axes.axvline(_span(rows[BASELINE])[0], **GUIDE)
            names = [f"{_short(name)}\n{v['decision']}" for name, v in rows.items()]
            axes.set_yticks(range(len(rows)), names)
            axes.set(xlim=limits, title=_short(firm, 40), xlabel="mean payoff")
            axes.invert_yaxis()

        told = "; ".join(f"{n} {number(v['payoff'])}, {v['decision']}" for n, v in rows.items())
        return _panel(f"Payoff of {firm}: {told}", 0.8 + 0.42 * len(rows), draw)

    return [panel(firm) for firm in firms[:MOST]]


def _curve_panels(rounds: pd.DataFrame, firms: Sequence[str]) -> list[Panel]:
    """Loss by epoch (by round, where there are several): equal contracts share a panel."""
    used = rounds[rounds["status"] == "ok"] if len(rounds) else rounds
    groups: dict[str, tuple[list[str], pd.DataFrame]] = {}
    for contract in used["contract"].unique() if len(used) else ():
        mine = used[used["contract"] == contract]
        step = "round" if mine["round"].nunique() > 1 else "epoch"
        table = mine.pivot_table("loss", step, "firm")
        groups.setdefault(table.to_csv(), ([], table))[0].append(contract)
    bounds = [end for _, table in groups.values() for end in (table.min().min(), table.max().max())]

    def panel(names: Sequence[str], table: pd.DataFrame) -> Panel:
        title = "every contract" if len(groups) == 1 else ", ".join(names)
        held = [firm for firm in firms if firm in table]

        def draw(axes: Axes) -> None:
            few = max(1, len(table) // 10)
            styles = [{**_firm_style(firms.index(f)), "markevery": few} for f in held]
            x = table.index + 1
            lines = [axes.plot(x, table[f], **s)[0] for f, s in zip(held, styles, strict=True)]
            room = 0.05 * (max(bounds) - min(bounds) or 1.0)
            axes.set(ylim=(min(bounds) - room, max(bounds) + room), title=_short(title, 46))
            axes.set(xlabel=table.index.name, ylabel="mean training loss")
            _legend(axes, lines, held)

        ends = [f"{f} {number(table[f].iloc[0])} to {number(table[f].iloc[-1])}" for f in held]
        return _panel(f"Training loss by {table.index.name}, {title}: {'; '.join(ends)}", 3.2, draw)

    return [panel(names, table) for names, table in groups.values()]


def _predicted_panels(payoffs: pd.DataFrame, firms: Sequence[str]) -> list[Panel]:
    """Measured against predicted payoff: a point a seed, contract and firm."""
    known = payoffs.dropna(subset=["payoff", "predicted"]) if len(payoffs) else payoffs
    if known.empty:
        return []

    def draw(axes: Axes) -> None:
        points = []
        for place, firm in enumerate(firms):
            mine, style = known[known["firm"] == firm], _firm_style(place) | {"linestyle": "none"}
            points += axes.plot(mine["predicted"], mine["payoff"], **style, alpha=0.7, ms=6)
        axes.axline((float(known["payoff"].mean()),) * 2, slope=1, **GUIDE)
        axes.set(xlabel="predicted payoff", ylabel="measured payoff")
        axes.set_aspect("equal", "datalim")
        _legend(axes, points, firms)

    apart = number(float((known["payoff"] - known["predicted"]).abs().mean()))
    return [_panel(f"Measured against predicted payoffs; mean distance {apart}", 3.7, draw)]


def _joint(study: Study, outcomes: Iterable[Outcome]) -> dict[str, Any] | None:
    """Panels of the joint table, measured and under the prior: mean over seeds of one shape."""
    alone = [o for o in outcomes if o.contract == BASELINE and o.table is not None]
    held = [np.array([o.table, o.belief]) for o in alone]
    if not held:
        return None
    shape = Counter(pair.shape for pair in held).most_common(1)[0][0]
    used = [pair for pair in held if pair.shape == shape]
    measured, believed = np.mean(used, axis=0)
    top, many = max(measured.max(), believed.max()), max(shape) > 4
    words = [[f"bin {i + 1}" for i in range(bins)] for bins in shape[2:]]
    if study.play.signal_bins == 0:
        words = [["no", "yes"]] * 2
    one, two = (f"signal of {_short(name)}" for name in study.names)

    def heat(title: str, cells: Array) -> Panel:
        def draw(axes: Axes) -> None:
            for (y, x), value in np.ndenumerate(cells):
                face, edge = to_rgba(BLUE, 0.55 * float(value / top)), to_rgba(INK, 0.3)
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fc=face, ec=edge, lw=0.5))
                axes.text(x, y, f"{value:.4f}", ha="center", va="center", size=8 if many else 9)
            axes.set(xlim=(-0.5, shape[3] - 0.5), ylim=(shape[2] - 0.5, -0.5))
            axes.set_xticks(range(shape[3]), words[1])
            axes.set_yticks(range(shape[2]), words[0])
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set(title=title, xlabel=two, ylabel=one)

        told = [f"{words[0][y]}, {words[1][x]}: {p:.4f}" for (y, x), p in np.ndenumerate(cells)]
        label = f"Joint table {title}; {one}, {two}: {'; '.join(told)}"
        return _panel(label, 1.2 + 0.4 * shape[2], draw, 0.9 + 0.55 * shape[3] if many else 3.7)

    return {
        "seeds": (len(used), len(held)),
        "measured": [heat(f"measured, t = {t}", measured[t]) for t in (0, 1)],
        "believed": [heat(f"believed, t = {t}", believed[t]) for t in (0, 1)],
    }
