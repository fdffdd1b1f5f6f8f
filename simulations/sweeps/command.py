"""A sweep from its configuration to the files in its folder and the last line on the screen."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from parties.exchange import FedpactError
from simulations.build import build, sha256
from simulations.provenance import now, origin
from simulations.results import RunFolder, digest, write_whole
from simulations.study import Study, study_of
from simulations.sweeps import Design
from simulations.sweeps.agreement import agreement
from simulations.sweeps.configs import APART, Configs
from simulations.sweeps.journal import Journal, unwritable
from simulations.sweeps.launch import Launch
from simulations.sweeps.report import write_sweep_report
from simulations.sweeps.run import Progress, Watch, hold_sweep
from simulations.sweeps.table import as_csv, as_parquet, table_of
from simulations.tracking import Tracking

log = logging.getLogger("fedpact")

JOURNAL = "jobs.jsonl"


@final
@dataclass(frozen=True)
class Sweep:
    """A sweep, ready to be held.

    Args:
        name: of its studies.
        words: the overrides that its studies have in common.
        design, launch, tracking: which jobs, how, and where rows are mirrored.
        configs: their configurations.
        config: the whole configuration, resolved.
    """

    name: str
    words: Sequence[str]
    design: Design
    launch: Launch
    tracking: Tracking
    configs: Configs
    config: Mapping[str, Any]

    @property
    def place(self) -> str:
        """The folder that the same command has every time."""
        told = {k: v for k, v in self.config.items() if k not in APART or k == "sweep"}
        return f"sweeps/{self.name}-{sha256(json.dumps(told, sort_keys=True))[:8]}"

    def study(self) -> Study:
        """The first of its studies.

        Raises:
            FedpactError: it is not legal.
        """
        return study_of(json.loads(self.configs.job(self.design.first()).text))


def sweep_of(config: DictConfig, overrides: Sequence[str]) -> Sweep:
    """A sweep from the configuration.

    Raises:
        FedpactError: a part of it is not legal.
    """
    whole: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    for key in ("compare", "campaign"):
        if whole[key]:
            raise FedpactError(
                f"{key} is set, and so is sweep; a sweep holds single studies. Leave one of them "
                f"out: {key}=none or sweep=none."
            )
    engine = str(whole["engine"]["_target_"])
    if not engine.endswith(".Inline"):
        raise FedpactError(
            f"engine is {engine}; the jobs of a sweep are held whole, many at once, by its own "
            "workers. Leave engine at inline, and set launch.workers, launch.num_gpus or "
            "launch.address."
        )
    design, launch = build(whole["sweep"]), build(whole["launch"])
    tracking = build(whole["tracking"])
    assert isinstance(design, Design)
    assert isinstance(launch, Launch)
    assert isinstance(tracking, Tracking)
    words = [w for w in overrides if w.split("=")[0].lstrip("+~").split(".")[0] not in APART]
    axes = [axis.key for axis in design.parsed]
    for word in words:
        key = word.split("=")[0].lstrip("+~")
        if key in axes:
            raise FedpactError(
                f"{word} is fixed, and {key} is an axis of the sweep too. Leave one of them out."
            )
        if key in design.keys:
            raise FedpactError(
                f"{word} is fixed, and this sweep sets {key} itself: {design.words}. Leave it out."
            )
    configs = Configs(words, design.keys)
    configs.job(design.first())  # refuses keys and choices that there are not
    launch.pool().close()  # refuses workers that there is no room for; starts none
    return Sweep(str(whole["study"]["name"]), words, design, launch, tracking, configs, whole)


def plan_lines(sweep: Sweep) -> list[str]:
    """What a sweep would do."""
    most = sweep.design.most()
    study = sweep.study()
    sessions = len(study.contracts) * len(study.seeds)
    return [
        f"Sweep of {sweep.name}: {sweep.design.words}",
        *(f"  {json.dumps(axis.told())}" for axis in sweep.design.parsed),
        f"{'As many jobs as it takes' if most is None else f'{most} jobs at most'}, each one study "
        f"of {len(study.names)} firms; the first has {sessions} sessions",
        f"{sweep.launch.words}, {sweep.launch.batch} jobs at a time",
        "Nothing was trained. Run it without dry_run=true.",
    ]


def run_sweep(
    sweep: Sweep,
    folder: RunFolder,
    config: DictConfig,
    overrides: list[str],
    watching: AbstractContextManager[Watch],
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Hold what is missing of a sweep in its folder, and write its table.

    Returns:
        The table and what sweep.json says.

    Raises:
        FedpactError: the folder is in use, holds something else, or cannot be written.
    """
    try:
        with folder.lock():
            return _run(sweep, folder, config, overrides, watching)
    except OSError as fault:
        raise unwritable(folder.path, fault) from fault


def _run(
    sweep: Sweep,
    folder: RunFolder,
    config: DictConfig,
    overrides: list[str],
    watching: AbstractContextManager[Watch],
) -> tuple[pd.DataFrame, dict[str, Any]]:
    from simulations import terminal

    again = (folder.path / JOURNAL).exists()
    source = _begin(sweep, folder, config, overrides, again)
    terminal.set_up_logging(folder.path, config["progress"] == "auto")
    if again:
        log.info("going on with %s", folder.path)
    sweep.design.open(folder.path)
    sweep.tracking.start(sweep.name, folder.path)
    journal, progress = Journal(folder.path / JOURNAL), Progress()
    started = time.monotonic()
    try:
        with watching as watch:
            hold_sweep(sweep.design, sweep.launch, sweep.configs, journal, progress, watch)
    except KeyboardInterrupt:
        write_table(sweep, folder, progress)
        log.warning("stopped; %d jobs are kept: run the same command again", len(progress.held))
        raise
    finally:
        journal.close()
    table = write_table(sweep, folder, progress)
    facts = _facts(sweep, folder, table, progress, source)
    facts["seconds"] = round(time.monotonic() - started, 2)
    folder.write_json("sweep.json", facts)
    write_sweep_report(table, facts, folder.path)
    for row in table.to_dict("records"):
        sweep.tracking.row({str(name): value for name, value in row.items()})
    sweep.tracking.close(facts)
    return table, facts


def _begin(
    sweep: Sweep, folder: RunFolder, config: DictConfig, overrides: list[str], again: bool
) -> dict[str, Any]:
    """Make the folder, or take up what is in it; where the sweep comes from."""
    if (folder.path / "config.yaml").exists() and not again:
        raise FedpactError(
            f"{folder.path} holds a run that is no sweep. Choose another folder with run_dir=..."
        )
    source = {"study": sweep.name, "place": sweep.place, **origin(overrides)}
    if again and (folder.path / "provenance.json").exists():
        first = folder.read_json("provenance.json")
        source = {**first, "overrides": overrides, "resumed": [*first.get("resumed", []), source]}
    folder.write_json("provenance.json", source)
    folder.start(config, True, source)
    return source


def write_table(sweep: Sweep, folder: RunFolder, progress: Progress) -> pd.DataFrame:
    """Write sweep.csv and sweep.parquet, each whole or not at all."""
    table = table_of(sweep.design.parsed, sweep.design.final(progress.held))
    write_whole(folder.path / "sweep.csv", as_csv(table))
    write_whole(folder.path / "sweep.parquet", as_parquet(table))
    return table


def _facts(
    sweep: Sweep,
    folder: RunFolder,
    table: pd.DataFrame,
    progress: Progress,
    source: Mapping[str, Any],
) -> dict[str, Any]:
    ok = table["status"] == "ok"
    firms, contracts, unit, data = _of_studies(sweep, progress)
    return {
        "name": sweep.name,
        "command": ["fedpact", *source["overrides"]],
        "words": list(sweep.words),
        "design": sweep.design.words,
        "axes": [axis.told() for axis in sweep.design.parsed],
        "firms": firms,
        "contracts": contracts,
        "unit": unit,
        "counts": {
            "jobs": len(table),
            "ok": int(ok.sum()),
            "failed": int((~ok).sum()),
            "undecided": int((ok & table["best"].isna()).sum()),
        },
        "errors": progress.errors,
        "stopped": progress.stopped,
        "sha256": digest(as_csv(table)),
        "started": source["started"],
        "finished": now(),
        "versions": source["versions"],
        "git": source["git"],
        "data": data,
        "agreement": agreement(table),
        "notes": _notes(source),
        "extra": dict(sweep.design.extra(progress.held)),
    }


def _of_studies(sweep: Sweep, progress: Progress) -> tuple[list[str], list[str], str, Any]:
    """Firms, unit and data of the first study that could be held, and all studies' contracts."""
    points = [one.point for one in progress.held if one.row["status"] == "ok"]
    if not points:
        return [], [], "", {}
    study = study_of(json.loads(sweep.configs.job(points[0]).text))
    rows = [key for one in progress.held for key in one.row if key.endswith(".signed")]
    contracts = dict.fromkeys([*study.contracts, *(key.removesuffix(".signed") for key in rows)])
    return list(study.names), list(contracts), study.market.unit, study.hashes()


def _notes(source: Mapping[str, Any]) -> list[str]:
    runs = [source, *source.get("resumed", [])]
    codes = {json.dumps([run["git"], run["versions"]]) for run in runs}
    if len(codes) == 1:
        return []
    return [
        f"The rows come from {len(codes)} versions of the code or of its libraries, since the "
        "sweep was gone on with after a change (provenance.json)."
    ]


def folder_of(config: Mapping[str, Any], sweep: Sweep) -> Path:
    """Where a sweep is filed: what the user says, or a place of its own."""
    return Path(str(config["resume"] or config["run_dir"] or sweep.place))
