"""sweep.html: one self-contained page on many studies, from their table alone."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from parties.files import write_whole
from server.verdict import BASELINE
from simulations.page import render
from simulations.sweeps import charts, maps
from simulations.sweeps.agreement import agreement
from simulations.sweeps.columns import Axis, amounts, answers, axes_of, holds, unsure
from simulations.sweeps.maps import Kind, Panel, Plane
from simulations.sweeps.noise import borne
from simulations.sweeps.sensitivity import VERDICT, Effect, effects
from simulations.sweeps.table import cut_off

ROWS = 2_000  # of the table that are shown
FIRMS = 4  # whose gains are drawn and listed one by one
SCRIPT = Path(__file__).with_name("table.js")


def write_sweep_report(table: pd.DataFrame, facts: Mapping[str, Any], folder: Path) -> Path:
    """Write sweep.html: one file that needs no network and no other file, nor its script.

    Args:
        table: a row a study, as in sweep.csv.
        facts: of the whole sweep, as in sweep.json.
    """
    path = folder / "sweep.html"
    write_whole(path, render("sweeps/sweep.html", _content(table, facts)))
    return path


def _content(table: pd.DataFrame, facts: Mapping[str, Any]) -> dict[str, Any]:
    axes = axes_of(table, facts)
    ok = (table["status"] == "ok").to_numpy(dtype=bool)
    contracts = [name for name in facts["contracts"] if name != BASELINE]
    kinds = maps.kinds_of(facts["contracts"])
    found = effects(table, axes)
    ranked = _by_effect(axes, found)
    plane = maps.plane_of(ranked[:2]) if ok.any() else None
    drawn = facts["firms"][:FIRMS]
    tops = _tops(table[ok], contracts, drawn)
    agreed = agreement(table)
    wins = _wins(table[ok], contracts)
    partly = any(wins[contract]["held"] < ok.sum() for contract in contracts)
    script = SCRIPT.read_text("utf-8")
    return {
        "facts": facts,
        "baseline": BASELINE,
        "axes": axes,
        "cut_off": cut_off(facts),
        "varying": [axis.key for axis in axes if len(axis.levels) > 1],
        "ok": int(ok.sum()),
        "undecided": int((ok & table["best"].isna()).sum()),
        "wins": wins,
        "borne": borne(table, axes),
        "kinds": kinds,
        "partly": partly,
        "not_held": maps.NOT_HELD,
        "verdicts": {k: v for k, v in maps.VERDICTS.items() if partly or k != "not held"},
        "plane": plane,
        "best": _best(plane, table, kinds) if plane else None,
        "amounts": _amounts(plane, table, contracts, facts, tops) if plane else {},
        "tops": tops,
        "left_out": len(facts["firms"]) - len(drawn),
        "predicted": any(a["compared"] + a["undecided"] for a in agreed.values()),
        "agreement": agreed,
        "verdict_maps": _verdicts(plane, table, contracts) if plane else {},
        "front": charts.front_of(table[ok], kinds, BASELINE, facts["firms"]) if ok.any() else None,
        "effects": _nested(found),
        "differs": any(effect.share is not None for effect in found),
        "table": _table(table, axes, contracts, drawn),
        "failures": _failures(table, facts),
        "command": _command(facts),
        "provenance": {
            "versions": json.dumps(facts["versions"], indent=2, ensure_ascii=False),
            "data": json.dumps(facts["data"], indent=2, ensure_ascii=False),
        },
        "extra": _extra(facts["extra"]),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


# ------------------------------------------------------------------------------ words and tables


def _wins(table: pd.DataFrame, contracts: Sequence[str]) -> dict[str, dict[str, int]]:
    """For each contract: how many studies hold it, and in how many of them every firm signs, some
    refuses, it is undecided, it is the best."""
    best = Counter(table["best"].dropna())
    found = {}
    for contract in contracts:
        held = holds(table, contract)
        signed = answers(table[f"{contract}.signed"])[held]
        found[contract] = {
            "held": int(held.sum()),
            "signs": int((signed == 1).sum()),
            "refuses": int((signed == 0).sum()),
            "undecided": int(np.isnan(signed).sum()),
            "best": best[contract],
        }
    found[BASELINE] = {"best": best[BASELINE]}
    return found


def _by_effect(axes: Sequence[Axis], found: Sequence[Effect]) -> list[Axis]:
    """Axes by what they explain of the best contract, then of all else; equals as designed."""
    verdict = dict.fromkeys((axis.key for axis in axes), 0.0)
    rest = dict(verdict)
    for effect in found:
        part = verdict if effect.answer == VERDICT else rest
        # What a small sample explains by chance does not make an axis matter.
        part[effect.axis] += (effect.share or 0.0) - (effect.chance or 0.0)
    varying = [axis for axis in axes if len(axis.levels) > 1]
    return sorted(varying, key=lambda a: (-round(verdict[a.key], 9), -round(rest[a.key], 9)))


def _nested(found: Sequence[Effect]) -> dict[str, list[Effect]]:
    """Answer -> what each axis explains of it, where that says anything."""
    nested: dict[str, list[Effect]] = {}
    for effect in found:
        if effect.tells:
            nested.setdefault(effect.answer, []).append(effect)
    return nested


def _table(
    table: pd.DataFrame, axes: Sequence[Axis], contracts: Sequence[str], firms: Sequence[str]
) -> dict[str, Any]:
    """Groups of headers and the rows below them; every cell is a word or a number."""
    heads: list[tuple[str, list[str]]] = [("study", ["job", *(a.key for a in axes), "best"])]
    columns: list[list[Any]] = [table["job"].tolist()]
    columns += [[axis.labels[place] for place in axis.places] for axis in axes]
    failed = (table["status"] == "failed").tolist()
    best = table["best"].astype(object).where(table["best"].notna(), "undecided").tolist()
    columns.append(["failed" if bad else word for bad, word in zip(failed, best, strict=True)])
    for contract in contracts:
        heads.append((contract, ["signed", "predicted", "surplus", *firms]))
        held = holds(table, contract)
        for part in ("signed", "predicted_signed"):
            words = {1.0: "yes", 0.0: "no"}
            none, lacking = ("undecided", "not held") if part == "signed" else ("", "")
            said = zip(failed, held, answers(table[f"{contract}.{part}"]), strict=True)
            columns.append(
                ["" if bad else words.get(v, none) if has else lacking for bad, has, v in said]
            )
        for name in ("surplus", *(f"{firm}.gain" for firm in firms)):
            columns.append([_amount(v) for v in amounts(table[f"{contract}.{name}"])])
    rows = list(zip(*(column[:ROWS] for column in columns), strict=True))
    return {"heads": heads, "rows": rows, "whole": len(table)}


def _amount(value: float) -> str:
    return "" if np.isnan(value) else f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def _failures(table: pd.DataFrame, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each failed study, with the command that holds it alone where sweep.json has it."""
    commands = {one["job"]: one["command"] for one in facts.get("failures", ())}
    failed = table[table["status"] == "failed"].to_dict("records")
    return [
        {**{k: row[k] for k in ("job", "error", "message")}, "command": commands.get(row["job"])}
        for row in failed
    ]


def _command(facts: Mapping[str, Any]) -> str:
    words = facts["command"]
    return words if isinstance(words, str) else shlex.join(words)


def _extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    optimum = extra.get("optimum")
    rest = {key: value for key, value in extra.items() if key != "optimum"}
    text = json.dumps(rest, indent=2, ensure_ascii=False, default=str) if rest else ""
    return {"optimum": optimum, "rest": text}


# ---------------------------------------------------------------------------------------- drawings


def _best(plane: Plane, table: pd.DataFrame, kinds: Mapping[str, Kind]) -> Panel:
    best = table["best"].astype(object).where(table["best"].notna(), "undecided")
    found = best.where(table["status"] == "ok", "failed").to_numpy(dtype=object)
    return maps.kind_map(plane, "best contract that every firm signs", found, kinds)


def _verdicts(
    plane: Plane, table: pd.DataFrame, contracts: Sequence[str]
) -> dict[str, tuple[Panel, Panel]]:
    """For each contract what was measured and what the exact game predicts."""
    failed = (table["status"] == "failed").to_numpy(dtype=bool)

    def drawn(contract: str, part: str, none: str, title: str) -> Panel:
        said = answers(table[f"{contract}.{part}"])
        found = np.where(said == 1, "signs", np.where(said == 0, "refuses", none)).astype(object)
        found[~holds(table, contract)] = "not held"
        found[failed] = "failed"
        return maps.kind_map(plane, title, found, maps.VERDICTS)

    return {
        contract: (
            drawn(contract, "signed", "undecided", f"{contract}, measured"),
            drawn(contract, "predicted_signed", "no prediction", f"{contract}, predicted"),
        )
        for contract in contracts
    }


def _amounts(
    plane: Plane,
    table: pd.DataFrame,
    contracts: Sequence[str],
    facts: Mapping[str, Any],
    tops: Mapping[str, float],
) -> dict[str, list[Panel]]:
    """For each contract its joint surplus and each firm's gain: maps, or lines on one axis."""
    firms, unit = facts["firms"][:FIRMS], facts["unit"]
    ok = (table["status"] == "ok").to_numpy(dtype=bool)
    if plane.y is None:
        return {
            contract: [charts.gain_lines(table, plane.x, contract, firms, unit)]
            for contract in contracts
        }

    def drawn(contract: str, name: str, part: str, firms: Sequence[str]) -> Panel:
        values = amounts(table[f"{contract}.{part}"])
        open_, absent = unsure(table, contract, firms), ok & ~holds(table, contract)
        top = tops[part.rpartition(".")[2]]
        title = maps.short(f"{contract}: {name}", 44)
        return maps.amount_map(plane, title, values, open_, absent, top, unit)

    return {
        contract: [
            drawn(contract, "joint surplus", "surplus", facts["firms"]),
            *(drawn(contract, firm, f"{firm}.gain", [firm]) for firm in firms),
        ]
        for contract in contracts
    }


def _tops(table: pd.DataFrame, contracts: Sequence[str], firms: Sequence[str]) -> dict[str, float]:
    """The surplus and the gain at which colours are full: few studies lie beyond."""
    parts = {"surplus": ["surplus"], "gain": [f"{firm}.gain" for firm in firms]}
    found = {}
    for name, columns in parts.items():
        drawn = [amounts(table[f"{c}.{column}"]) for c in contracts for column in columns]
        values = np.abs(np.concatenate([*drawn, np.zeros(1)]))
        values = values[values > 0]
        found[name] = float(np.quantile(values, 0.98)) if len(values) else 1.0
    return found
