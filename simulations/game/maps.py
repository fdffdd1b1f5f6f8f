"""`python -m simulations.game map`: where firms would sign which contract, over two parameters."""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from parties.exchange import FedpactError
from server.game.fast import CONTRACTS
from server.game.selection import TIES
from simulations.game.axes import COUPLINGS, STEPS, Plan
from simulations.game.panels import MOST_PANELS, PRIOR, Each, Panels
from simulations.game.refine import MOST_POINTS, RegionMap, explore, legend
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
        "--each", action="append", default=[], metavar="NAME=VALUE,...",
        help=f"a map for each value, side by side; a second --each goes down the rows; at most "
        f"{MOST_PANELS} maps. NAME may be {PRIOR}, its values worlds joined by +: "
        f"{PRIOR}=1:independent,1/2:independent+1/2:strongest",
    )  # fmt: skip
    parser.add_argument(
        "--refine", type=int, default=REFINE, metavar="N",
        help="how often squares are halved where regions change (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--out", metavar="DIR", help="a new folder (default: maps/<time>)")


def run(chosen: argparse.Namespace) -> Path:
    """Draw a map, or several side by side; returns its folder.

    In it are map.parquet, map.png, map.html and map.json.

    Raises:
        FedpactError: an argument is not legal, or the folder holds something already.
    """
    panels = Panels.parse(chosen.x, chosen.y, chosen.sets, chosen.worlds, chosen.each)
    folder = _folder(chosen.out)
    found, seconds = [], []
    for place, plan in enumerate(panels.plans):
        started = time.perf_counter()
        try:
            found.append(explore(plan, chosen.refine))
        except FedpactError as fault:
            where = f"In the panel {panels.title(place)}: " if panels.each else ""
            raise FedpactError(f"{where}{fault}") from fault
        seconds.append(time.perf_counter() - started)
    facts = _facts(panels, found, chosen.refine, seconds)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(panels, found, facts, folder)
    except OSError as fault:
        raise FedpactError(
            f"--out {folder} cannot be written ({fault.strerror}); legal is a folder of your own "
            "on a disk with room. Choose another."
        ) from fault
    return folder


def told(folder: Path) -> list[str]:
    """Lines on a finished map: each region with its share of the area, and what was cut short."""
    facts = json.loads((folder / "map.json").read_text("utf-8"))
    lines = []
    for panel in facts.get("panels", [facts]):
        lines += [panel["title"]] if "title" in panel else []
        lines += [f"{row['percent']:>9}  {row['region']}" for row in panel["regions"]]
    return [*lines, *facts["notes"], str(folder)]


def write(
    panels: Panels, found: Sequence[RegionMap], facts: Mapping[str, Any], folder: Path
) -> None:
    """Put maps on disk, the table first."""
    # Imported late: `solve` and `explain` answer without them.
    from parties.files import write_whole
    from simulations.game.picture import png, svg
    from simulations.game.table import write_table
    from simulations.page import render

    write_table(panels, found, facts, folder / "map.parquet")
    write_whole(folder / "map.json", (json.dumps(facts, indent=2) + "\n").encode())
    write_whole(folder / "map.png", png(panels, found))
    content = {"each": [], "panels": [facts], **facts, "picture": svg(panels, found)}
    write_whole(folder / "map.html", render("game/map.html", content))


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


def _facts(
    panels: Panels, found: Sequence[RegionMap], refine: int, seconds: Sequence[float]
) -> dict[str, Any]:
    """All that map.json says; of several maps, what it would say of each, and what they share."""
    from simulations.game.picture import label_of

    palette = colours([name_of(code) for code in legend(found)])
    told = [
        _facts_of(one, refine, spent, palette) for one, spent in zip(found, seconds, strict=True)
    ]
    if not panels.each:
        return told[0]
    first, varied = told[0], [one.name for one in panels.each]
    titles = [panels.title(place) for place in range(len(found))]
    values = [dict(zip(varied, at, strict=True)) for at in panels.at]
    return {
        "command": _command(panels.plans[0], refine, panels.each),
        "reading": first["reading"],
        "axes": first["axes"],
        "each": [
            {"name": e.name, "words": label_of(e.name), "values": list(e.values)}
            for e in panels.each
        ],
        "fixed": {name: v for name, v in first["fixed"].items() if name not in varied},
        "worlds": [] if PRIOR in varied else first["worlds"],
        "refine": refine,
        "points": sum(one["points"] for one in told),
        "notes": [
            f"{title}: {note}"
            for title, one in zip(titles, told, strict=True)
            for note in one["notes"]
        ],
        "regions": [
            {"region": name, "colour": colour, "meaning": meaning(name)}
            for name, colour in palette.items()
        ],
        "panels": [
            {"title": title, "at": at, **one}
            for title, at, one in zip(titles, values, told, strict=True)
        ],
        "seconds": round(sum(seconds), 3),
        "versions": first["versions"],
        "drawn": told[-1]["drawn"],
    }


def _facts_of(
    found: RegionMap, refine: int, seconds: float, palette: Mapping[str, str]
) -> dict[str, Any]:
    """All that map.json says of one map."""
    from simulations.game.picture import label_of, percent

    plan, shares, thin = found.plan, found.shares, found.thin
    names = {code: name_of(code) for code in shares}
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


def _command(plan: Plan, refine: int, each: Sequence[Each] = ()) -> str:
    """The command that draws this map again, or maps of which this plan is the first."""
    varied = [one.name for one in each]
    words = ["python", "-m", "simulations.game", "map", "--x", plan.x.words, "--y", plan.y.words]
    for name, value in plan.fixed.items():
        words += ["--set", f"{name}={value}"] * (name not in varied)
    for weight, rho in plan.worlds:
        words += ["--world", f"{weight}:{rho}"] * (PRIOR not in varied)
    for one in each:
        words += ["--each", one.words]
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
