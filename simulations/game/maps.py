"""`python -m simulations.game map`: where firms would sign which contract, over two parameters."""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from parties.exchange import FedpactError
from server.game.fast import CONTRACTS
from server.game.selection import TIES
from simulations.game.axes import COUPLINGS, STEPS, Plan
from simulations.game.refine import MOST_POINTS, RegionMap, explore
from simulations.game.regions import CODES, PAIRS, colours, meaning, name_of

PACKAGES = ("fedpact", "numpy", "pandas", "pyarrow", "matplotlib")
REFINE = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    names = "alpha, beta, R0, R1, C0, C1, gamma, weight (of world 1 of 2), rho1, rho2, ..."
    form = f"NAME=LOW:HIGH:STEPS; STEPS is {STEPS} if left out"
    parser.add_argument("--x", required=True, metavar="AXIS", help=f"{form}. NAME: {names}")
    parser.add_argument("--y", required=True, metavar="AXIS", help="likewise")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="sets",
        help="hold a parameter at a value; default: alpha=4/5 beta=7/10 R=(0,1) C=(0,1) gamma=1/2",
    )  # fmt: skip
    parser.add_argument(
        "--world", action="append", default=[], metavar="WEIGHT:RHO", dest="worlds",
        help=f"a world and P(both right) in it: a number, {', '.join(COUPLINGS)}; may be repeated "
        "(default: 1:independent)",
    )  # fmt: skip
    parser.add_argument(
        "--refine", type=int, default=REFINE, metavar="N",
        help="how often squares are halved where regions change (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--out", metavar="DIR", help="a new folder (default: maps/<time>)")


def run(chosen: argparse.Namespace) -> Path:
    """Draw a map; returns its folder: map.parquet, map.png, map.html, map.json.

    Raises:
        FedpactError: an argument is not legal, or the folder holds something already.
    """
    plan = Plan.parse(chosen.x, chosen.y, chosen.sets, chosen.worlds)
    folder = _folder(chosen.out)
    started = time.perf_counter()
    found = explore(plan, chosen.refine)
    facts = _facts(found, chosen.refine, time.perf_counter() - started)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(found, facts, folder)
    except OSError as fault:
        raise FedpactError(
            f"--out {folder} cannot be written ({fault.strerror}); legal is a folder of your own "
            "on a disk with room. Choose another."
        ) from fault
    return folder


def told(folder: Path) -> list[str]:
    """Lines on a finished map: each region with its share of the area, and what was cut short."""
    facts = json.loads((folder / "map.json").read_text("utf-8"))
    rows = [f"{row['percent']:>9}  {row['region']}" for row in facts["regions"]]
    return [*rows, *facts["notes"], str(folder)]


def write(found: RegionMap, facts: Mapping[str, Any], folder: Path) -> None:
    """Put a map on disk, the table first."""
    # Imported late: `solve` and `explain` answer without them.
    from simulations.game.picture import png, svg
    from simulations.page import render
    from simulations.results import write_whole

    _write_table(found, facts, folder / "map.parquet")
    write_whole(folder / "map.json", (json.dumps(facts, indent=2) + "\n").encode())
    write_whole(folder / "map.png", png(found))
    write_whole(folder / "map.html", render("game/map.html", {**facts, "picture": svg(found)}))


def _folder(out: str | None) -> Path:
    """The folder to write to, new or empty; it is made when there is a map to put in it."""
    path = Path(out or f"maps/{datetime.now():%Y-%m-%d_%H-%M-%S}")
    while out is None and path.exists():  # two maps within one second
        path = path.with_name(path.name + "+")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        what = "already holds files" if path.is_dir() else "is a file"
        raise FedpactError(
            f"--out {path} {what}; legal is a folder that is new or empty. Choose another."
        )
    return path


# ----------------------------------------------------------------------------------------- facts


def _facts(found: RegionMap, refine: int, seconds: float) -> dict[str, Any]:
    """All that map.json says."""
    from simulations.game.picture import label_of, percent

    plan, shares, thin = found.plan, found.shares, found.thin
    names = {code: name_of(code) for code in shares}
    palette = colours(list(names.values()))
    counted = np.bincount(found.sheet.region, minlength=CODES)
    examples = _examples(found, list(names))
    regions = [
        {
            "region": names[code],
            "share": share,
            "thin": code in thin,
            "percent": percent(share, code in thin),
            "points": int(counted[code]),
            "colour": palette[names[code]],
            "meaning": meaning(names[code]),
            "example": examples[code],
        }
        for code, share in shares.items()
    ]
    axes = [
        {"name": a.name, "words": label_of(a.name), "low": str(a.low), "high": str(a.high)}
        | {"steps": a.steps}
        for a in (plan.x, plan.y)
    ]
    fixed = {name: str(value) for name, value in plan.fixed.items()}
    worlds = [{"weight": str(weight), "rho": str(rho)} for weight, rho in plan.worlds]
    return {
        "command": _command(plan, refine),
        "reading": "selected equilibrium, ex ante",
        "axes": axes,
        "fixed": fixed,
        "worlds": worlds,
        "refine": refine,
        "points": len(found.sheet),
        "levels": {str(k): len(v) for k, v in sorted(found.squares.items())},
        "counts": dict(found.counts),
        "notes": _notes(found),
        "regions": regions,
        "seconds": round(seconds, 3),
        "versions": {name: _version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "drawn": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _command(plan: Plan, refine: int) -> str:
    """The command that draws this map again."""
    words = ["python", "-m", "simulations.game", "map", "--x", plan.x.words, "--y", plan.y.words]
    for name, value in plan.fixed.items():
        words += ["--set", f"{name}={value}"]
    for weight, rho in plan.worlds:
        words += ["--world", f"{weight}:{rho}"]
    return shlex.join([*words, "--refine", str(refine)])


def _notes(found: RegionMap) -> list[str]:
    """What a reader of the map must know of its limits."""
    counts, notes = found.counts, []
    if counts["undivided"]:
        notes.append(
            f"Refinement was stopped at {len(found.sheet):,} points, of at most {MOST_POINTS:,}: "
            f"{counts['undivided']:,} squares where something happens were not halved further. "
            "Take a smaller window or fewer steps."
        )
    if counts["left"]:
        notes.append(
            f"{counts['left']:,} points are left as ties: payoffs there differ by less than floats "
            "can tell, and there are too many for the exact engine. Use rounder numbers or fewer "
            "steps."
        )
    if counts["differing"]:
        notes.append(
            f"The exact engine contradicted the fast path at {counts['differing']:,} of "
            f"{counts['checked']:,} points that it checked. Please report this map's command."
        )
    return notes


def _examples(found: RegionMap, codes: list[int]) -> dict[int, dict[str, Any]]:
    """Region -> its clearest point: where the least difference of two payoffs is largest."""
    sheet, plan = found.sheet, found.plan
    margin = np.full(len(sheet), np.inf)
    for c, d in PAIRS:
        more = np.abs(sheet.payoffs[c] - sheet.payoffs[d])
        margin = np.minimum(margin, np.where(more > TIES * plan.scale, more, np.inf).min(0))
    examples = {}
    for code in codes:
        points = np.flatnonzero(sheet.region == code)
        finite = np.where(np.isfinite(margin[points]), margin[points], -1.0)
        best = int(finite.argmax()) if finite.max() > 0 else len(points) // 2
        point = points[best]
        values = [plan.x.at(int(sheet.x[point]), found.fine)]
        values.append(plan.y.at(int(sheet.y[point]), found.fine))
        paid = {
            name: [None if np.isnan(u) else float(u) for u in sheet.payoffs[c, :, point]]
            for c, name in enumerate(CONTRACTS)
        }
        at = {a.name: float(v) for a, v in zip((plan.x, plan.y), values, strict=True)}
        examples[code] = {"at": at, "exactly": [str(v) for v in values], "payoffs": paid}
    return examples


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# ----------------------------------------------------------------------------------------- table


def _write_table(found: RegionMap, facts: Mapping[str, Any], path: Path) -> None:
    """map.parquet: one row a point, by y and then x."""
    import pandas as pd

    sheet, plan = found.sheet, found.plan
    codes = sorted({int(code) for code in np.flatnonzero(np.bincount(sheet.region))})
    place = np.zeros(CODES, np.int8)
    place[codes] = np.arange(len(codes))
    names = pd.Index([name_of(code) for code in codes])
    named = pd.Categorical.from_codes(place[sheet.region], names)
    columns: dict[str, Any] = {
        plan.x.name: plan.x.floats(sheet.x, found.fine),
        plan.y.name: plan.y.floats(sheet.y, found.fine),
        "region": named,
        "level": sheet.level,
        "exact": sheet.exact,
    }
    for c, name in enumerate(CONTRACTS):
        columns[f"payoff1_{name}"], columns[f"payoff2_{name}"] = sheet.payoffs[c]
        columns[f"trade_{name}"], columns[f"irpo_{name}"] = sheet.trade[c], sheet.irpo[c]
    no, full = sheet.payoffs[0], sheet.payoffs[3]
    columns["transfer_low"], columns["transfer_high"] = no[0] - full[0], full[1] - no[1]
    table = pd.DataFrame(columns, copy=False)
    table.attrs = {"command": facts["command"], "reading": facts["reading"]}
    part = path.with_name(path.name + ".part")
    few = [plan.x.name, plan.y.name, "region"]  # values; of the other numbers all differ
    many = [name for name, values in table.items() if values.dtype == float and name not in few]
    table.to_parquet(
        part,
        engine="pyarrow",
        index=False,
        compression="zstd",
        use_dictionary=few,
        use_byte_stream_split=many,
    )
    part.replace(path)
