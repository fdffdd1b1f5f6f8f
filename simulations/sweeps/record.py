"""What a sweep leaves in its folder: sweep.csv, sweep.parquet, sweep.json and sweep.html."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from parties.files import digest, write_whole
from simulations.provenance import now
from simulations.results import RunFolder
from simulations.study import study_of
from simulations.sweeps import Held
from simulations.sweeps.agreement import agreement
from simulations.sweeps.report import write_sweep_report
from simulations.sweeps.run import Progress
from simulations.sweeps.table import as_csv, as_parquet, table_of

if TYPE_CHECKING:
    from simulations.sweeps.command import Sweep


def record(
    sweep: Sweep,
    folder: RunFolder,
    progress: Progress,
    source: Mapping[str, Any],
    seconds: float,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Write all of it, as far as the sweep has come; each file whole or not at all.

    Returns:
        The table, and what sweep.json says.
    """
    held = sweep.design.final(progress.held)
    table = table_of(sweep.design.parsed, held)
    content = as_csv(table)
    write_whole(folder.path / "sweep.csv", content)
    write_whole(folder.path / "sweep.parquet", as_parquet(table))
    ok = table["status"] == "ok"
    firms, contracts, unit, data = _of_studies(sweep, progress)
    facts = {
        "name": sweep.name,
        "command": ["fedpact", *source["overrides"]],
        "design": sweep.design.words,
        "axes": [axis.told() for axis in sweep.design.parsed],
        "firms": firms,
        "contracts": contracts,
        "unit": unit,
        "counts": {
            "asked": len(table) + progress.asked - progress.told,
            "jobs": len(table),
            "ok": int(ok.sum()),
            "failed": int((~ok).sum()),
            "undecided": int((ok & table["best"].isna()).sum()),
        },
        "errors": progress.errors,
        "failures": _failures(sweep, held),
        "stopped": progress.stopped,
        "interrupted": progress.interrupted,
        "sha256": digest(content),
        "started": source["started"],
        "finished": now(),
        "seconds": round(seconds, 2),
        "versions": source["versions"],
        "git": source["git"],
        "data": data,
        "agreement": agreement(table),
        "notes": _notes(source, progress),
        "extra": dict(sweep.design.extra(progress.held)),
    }
    folder.write_json("sweep.json", facts)
    write_sweep_report(table, facts, folder.path)
    return table, facts


def _failures(sweep: Sweep, held: Sequence[Held]) -> list[dict[str, Any]]:
    """Each failed job with the command that holds its study alone."""
    return [
        {
            "job": number,
            "error": one.row["error"],
            "message": one.row["message"],
            "command": shlex.join(["fedpact", *sweep.configs.words(one.point)]),
        }
        for number, one in enumerate(held)
        if one.row["status"] == "failed"
    ]


def _of_studies(sweep: Sweep, progress: Progress) -> tuple[list[str], list[str], str, Any]:
    """Firms, unit and data of the first study that could be held, and all studies' contracts."""
    points = [one.point for one in progress.held if one.row["status"] == "ok"]
    if not points:
        return [], [], "", {}
    study = study_of(json.loads(sweep.configs.job(points[0]).text))
    rows = [key for one in progress.held for key in one.row if key.endswith(".signed")]
    contracts = dict.fromkeys([*study.contracts, *(key.removesuffix(".signed") for key in rows)])
    return list(study.names), list(contracts), study.market.unit, study.hashes()


def _notes(source: Mapping[str, Any], progress: Progress) -> list[str]:
    notes = []
    codes = {json.dumps([run["git"], run["versions"]]) for run in _runs(source)}
    if len(codes) > 1:
        notes.append(
            f"The rows come from {len(codes)} versions of the code or of its libraries, since the "
            "sweep was gone on with after a change (provenance.json)."
        )
    if progress.jobs < progress.asked:
        notes.append(
            f"{progress.asked} points were asked for, which are {progress.jobs} different studies: "
            "some values change nothing in a study. Each was held once."
        )
    return notes


def _runs(source: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [source, *source.get("resumed", [])]
