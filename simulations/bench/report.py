"""bench.md, bench.html and bench.json of a folder: what was measured in it, and on what machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from parties.exchange import FedpactError
from parties.files import write_whole
from simulations.bench.row import Row
from simulations.page import INK, render, svg, with_own_ids
from simulations.provenance import origin

Told = Mapping[str, Any]
"""A row (`Row.told`), a command or a machine, as it is in bench.json."""

COLOURS = {"holds": "#009E73", "missed": "#D55E00", "void": "#8C8C8C", "": "#0072B2"}
WIDTH = 8.0  # inches


def add_to_report(
    folder: Path, name: str, words: Sequence[str], about: str, rows: Sequence[Row]
) -> Path:
    """Put a command's rows into the report of a folder, in the place of the same command's before.

    Args:
        words: its arguments; about: what it measures.

    Returns:
        The page.
    """
    path = folder / "bench.json"
    commands = _read(path)
    told = {
        "command": " ".join(["python -m simulations.bench", name, *_without_out(words)]),
        "about": about.rstrip("."),
        "machine": machine(),
        "rows": [row.told() for row in rows],
    }
    commands = [c for c in commands if c["command"] != told["command"]] + [told]
    commands.sort(key=lambda command: str(command["command"]))
    write_whole(path, json.dumps(commands, indent=1).encode())
    write_whole(folder / "bench.md", markdown(commands).encode())
    page = render("bench/bench.html", {"commands": [_shown(command) for command in commands]})
    write_whole(folder / "bench.html", page)
    return folder / "bench.html"


def machine() -> dict[str, Any]:
    """What the figures were measured on, with which code, when."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9),
        "gpus": _gpus(),
        **{k: v for k, v in origin([]).items() if k not in ("command", "overrides")},
    }


def markdown(commands: Sequence[Told]) -> str:
    """The tables, a section a command."""
    lines = ["# Benchmarks", ""]
    for command in commands:
        lines += [f"## {command['about']}", "", f"`{command['command']}`", ""]
        for note in facts(command["machine"]):
            lines += [note, ""]
        for what, rows in _tables(command["rows"]).items():
            columns = _columns(rows)
            lines += [f"### {what}", "", _line(columns), _line(["---"] * len(columns))]
            lines += [_line(cells(row)[column] for column in columns) for row in rows]
            lines.append("")
    return "\n".join(lines)


def facts(told: Told) -> list[str]:
    """A machine in two sentences."""
    versions = [f"{k} {v}" for k, v in told["versions"].items() if k != "fedpact" and v]
    git, commit = told["git"], "commit unknown"
    if git is not None:
        commit = f"commit {git['commit'][:12]}{', changed since' if git['changed'] else ''}"
    gpus = "".join(f", {name}" for name in told["gpus"])
    return [
        f"{told['processor']}, {told['cores']} cores, {told['memory_gb']} GB{gpus}; "
        f"{told['started']}, {commit}.",
        f"Python {told['python']}, {', '.join(versions)}.",
    ]


def cells(row: Told) -> dict[str, str]:
    """A row as it is read, by column."""
    ratio = spread = ""
    if row["ratio"] is not None:
        ratio = f"{figure(row['ratio'])} x {row['beside']}".strip()
    if len(row["ratios"]) > 1:
        spread = f"{figure(row['low'])} to {figure(row['high'])}"
    return {
        "of": row["name"],
        "middle": f"{figure(row['value'])} {row['unit']}".strip(),
        "ratio": ratio,
        "spread": spread,
        "must be": row["bar"],
        "verdict": f"void: {row['void']}" if row["void"] else row["verdict"],
        "peak": "" if row["peak_mb"] is None else f"{row['peak_mb']:,.0f} MB",
    }


def figure(value: float | None) -> str:
    """Three digits, or all before the point.

    >>> figure(1234567.8), figure(0.012345), figure(17.25), figure(0.0), figure(None)
    ('1,234,568', '0.0123', '17.2', '0', '')
    """
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def drawn(rows: Sequence[Told]) -> Figure:
    """The ratios as bars from 1 on a logarithmic axis, with their spread and what they must be."""
    places = range(len(rows))[::-1]
    picture = Figure(figsize=(WIDTH, 0.9 + 0.32 * len(rows)), layout="constrained")
    axes = picture.subplots()
    axes.set_xscale("log")
    ends = [end for row in rows for end in (row["low"], row["high"])]
    for place, row in zip(places, rows, strict=True):
        ratio, colour = row["ratio"], COLOURS[row["verdict"]]
        axes.barh(place, ratio - 1, left=1, height=0.6, color=colour)
        axes.plot([row["low"], row["high"]], [place, place], color=INK, linewidth=1.2)
        if row["bar"]:
            limit = float(row["bar"].split()[-1])
            ends.append(limit)
            axes.plot([limit, limit], [place - 0.42, place + 0.42], color=INK, linewidth=2.4)
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_yticks(list(places), [f"{row['name']}, x {row['beside']}" for row in rows], size=8)
    # A ratio near 1 should look near it, so that the axis is never less than from a half to 2.
    axes.set_xlim(min(0.5, 0.9 * min(ends)), max(2.0, 1.1 * max(ends)))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("ratio; line: all repeats; stroke: what it must be", size=8)
    return picture


def _shown(command: Told) -> dict[str, Any]:
    """A command as bench.html shows it."""
    tables = []
    for what, rows in _tables(command["rows"]).items():
        ratios = [row for row in rows if row["ratio"]]
        picture, key = None, f"{command['command']}: {what}"
        if ratios:
            drawing = svg(lambda ratios=ratios: drawn(ratios), {}, key)  # type: ignore[misc]
            picture = with_own_ids(drawing, f"c{crc32(key.encode())}")
        tables.append(
            {
                "what": what,
                "columns": _columns(rows),
                "rows": [cells(row) for row in rows],
                "picture": picture,
                "ratios": [cells(row) for row in ratios],
            }
        )
    return {**command, "facts": facts(command["machine"]), "tables": tables}


def _tables(rows: Sequence[Told]) -> dict[str, list[Told]]:
    """What was measured -> its rows."""
    found: dict[str, list[Told]] = {}
    for row in rows:
        found.setdefault(row["what"], []).append(row)
    return found


def _columns(rows: Sequence[Told]) -> list[str]:
    """Those in which some row says something."""
    all_cells = [cells(row) for row in rows]
    return [column for column in all_cells[0] if any(c[column] for c in all_cells)]


def _line(words: Any) -> str:
    return f"| {' | '.join(words)} |"


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        found: list[dict[str, Any]] = json.loads(path.read_bytes())
    except ValueError as fault:
        raise FedpactError(
            f"{path} is no report ({fault}); legal is what a command with --out wrote, or nothing. "
            "Choose another folder."
        ) from fault
    return found


def _without_out(words: Sequence[str]) -> list[str]:
    """Arguments that say what is measured, not where it is put."""
    kept = []
    rest = iter(words)
    for word in rest:
        if word == "--out":
            next(rest, None)
        elif not word.startswith("--out="):
            kept.append(word)
    return kept


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
