"""`python -m simulations`, or `fedpact`: hold a study and print its verdict."""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from parties.exchange import FedpactError
from simulations.build import as_text, build
from simulations.engines import Engine, Job
from simulations.mistakes import explain
from simulations.words import spelled_out

AGAIN_S = 0.05
# Not part of the study: they may differ when a run is resumed.
OWN = ("run_dir", "resume", "format", "dry_run")
FREE = (
    *("engine", "launch", "tracking", "limits", "format", "progress", "resume", "run_dir"),
    "dry_run",
)


def _run_dir(run_dir: Any, resume: Any, dry_run: Any, name: Any, sweep: Any) -> str:
    if dry_run or sweep:  # a sweep finds its place by what it holds
        return "."
    if resume or run_dir:
        return str(resume or run_dir)
    path = f"runs/{datetime.now():%Y-%m-%d_%H-%M-%S}_{name}"
    while Path(path).exists():  # two runs within one second
        path += "+"
    return path


OmegaConf.register_new_resolver("fedpact_run_dir", _run_dir, use_cache=True, replace=True)


def hold(config: DictConfig, folder_path: Path, overrides: list[str]) -> int:
    """Hold what is asked for, from the configuration to the last line on the screen.

    Returns:
        The exit status: 1 where jobs of a sweep have failed.
    """
    # Imported late: --help and mistakes in the configuration answer without loading torch.
    from simulations import terminal
    from simulations.results import RunFolder
    from simulations.study import study_of

    _check_words(config)
    if OmegaConf.select(config, "sweep"):
        return _sweep(config, overrides)
    if not str(OmegaConf.select(config, "tracking")["_target_"]).endswith(".NoTracking"):
        raise FedpactError(
            "tracking mirrors the rows of a sweep, and this is none: it would change nothing. "
            "Leave it out, or sweep something: fedpact -m market.C1=2,3,5 tracking=mlflow"
        )
    if OmegaConf.select(config, "campaign"):
        _campaign(config, folder_path, overrides)
        return 0
    if OmegaConf.select(config, "compare"):
        _compare(config, folder_path, overrides)
        return 0
    if config["dry_run"]:
        study = study_of(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
        plan = build(config["engine"]).plan(Job(as_text(config), folder_path, study.names))
        terminal.print_plan(study, plan, as_json=config["format"] == "json")
        terminal.print_folder(folder_path.resolve())
        return 0
    verdict, spent = _hold_one(config, folder_path, overrides)
    folder = RunFolder(folder_path)
    if config["format"] == "json":
        terminal.print_json(folder, "verdict.json")
    else:
        terminal.print_verdict(verdict, folder, spent)
    terminal.print_folder(folder.path.resolve())
    return 0


def _hold_one(
    config: DictConfig, folder_path: Path, overrides: list[str]
) -> tuple[dict[str, Any], float]:
    """Hold one study in a folder of its own; its verdict, and the CPU seconds it took."""
    from simulations import terminal
    from simulations.conclude import conclude
    from simulations.provenance import now, provenance
    from simulations.report import write_report
    from simulations.results import RunFolder
    from simulations.study import study_of

    text = as_text(config)
    study = study_of(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    engine: Engine = build(config["engine"])
    job = Job(text, folder_path, study.names)
    plan = engine.plan(job)
    folder = RunFolder(folder_path)
    shown = config["progress"] == "auto"
    with folder.lock():
        origin = {**provenance(study, type(engine).__name__, overrides), "plan": plan}
        if config["resume"]:
            first = folder.read_json("provenance.json")
            origin = {**first, "resumed": [*first.get("resumed", []), origin]}
            folder.write_json("provenance.json", origin)
        folder.start(config, bool(config["resume"]), origin)
        log = terminal.set_up_logging(folder.path, shown)
        log.info("study %s in %s (%s)", study.name, folder.path, plan[0])
        started = time.process_time()
        sessions = len(list(study.cases()))
        with _to_go_on_with(folder.path):
            with terminal.watching(folder, sessions, len(study.names), shown):
                engine.hold(job)
            verdict = conclude(study, folder)
            spent = time.process_time() - started
            folder.write_json(
                "provenance.json", {**origin, "finished": now(), "cpu_seconds": round(spent, 2)}
            )
            write_report(study, folder, verdict)
        log.info("done: %s", folder.path / "report.html")
    return verdict, spent


@contextmanager
def _to_go_on_with(folder: Path) -> Iterator[None]:
    """Whoever interrupts it is told how to go on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"stopped; go on with: fedpact resume={folder}") from stop


def _sweep(config: DictConfig, overrides: list[str]) -> int:
    """Hold many studies, a row each."""
    from simulations import terminal
    from simulations.results import RunFolder
    from simulations.sweeps.command import folder_of, plan_lines, run_sweep, sweep_of

    if config["resume"]:  # what it holds is what its first command said
        first = RunFolder(Path(str(config["resume"]))).read_json("provenance.json")["overrides"]
        overrides = [*first, *(w for w in overrides if not w.startswith("resume="))]
    sweep = sweep_of(config, overrides)
    place = folder_of(config, sweep)
    if config["dry_run"]:
        terminal.print_lines(plan_lines(sweep))
        terminal.print_folder(place.resolve())
        return 0
    folder, shown = RunFolder(place), config["progress"] == "auto"
    watching = terminal.counting_jobs(shown)
    table, facts = run_sweep(sweep, folder, config, overrides, watching)
    if config["format"] == "json":
        terminal.print_json(folder, "sweep.json")
    else:
        terminal.print_sweep(table, facts, folder)
    terminal.print_folder(folder.path.resolve())
    counts = facts["counts"]
    if counts["failed"]:
        left = counts["asked"] - counts["jobs"] if facts["stopped"] else 0
        more = f"; {left} were not held" if left else ""
        sys.stderr.write(f"fedpact: {counts['failed']} of {counts['jobs']} jobs failed{more}\n")
    return 1 if counts["failed"] else 0


def _compare(config: DictConfig, folder_path: Path, overrides: list[str]) -> None:
    """Hold a study a method and setting, each in a folder below, and compare them."""
    from simulations import terminal
    from simulations.compare import compare, plan_of
    from simulations.compare_report import write_comparison
    from simulations.provenance import origin
    from simulations.results import RunFolder
    from simulations.study import study_of

    plan = plan_of(OmegaConf.to_container(config["compare"], resolve=True))  # type: ignore[arg-type]
    if config["resume"]:  # the cells are those of the run that is gone on with
        first = RunFolder(folder_path).read_json("provenance.json")["overrides"]
        overrides = [*first, *overrides]
    keys = {word: word.split("=")[0].lstrip("+~") for word in overrides}
    words = [w for w, key in keys.items() if key not in OWN and key.split(".")[0] != "compare"]
    watched = [*words, "compare=none", f"study.watch={str(plan.watch).lower()}"]
    for setting, method, more in plan.cells:  # all are checked before the first epoch
        whole = hydra.compose("config", [*watched, *more])
        try:
            study = study_of(OmegaConf.to_container(whole, resolve=True))  # type: ignore[arg-type]
            build(whole["engine"]).plan(Job(as_text(whole), folder_path, study.names))
        except FedpactError as fault:
            raise FedpactError(f"compare, {setting} under {method}: {fault}") from fault
    if any(word.split("=")[0] == "strategy" for word in watched) and all(
        any(word.startswith("strategy=") for word in named) for named in plan.methods.values()
    ):
        raise FedpactError(
            "strategy=... would change nothing: every method of this comparison has its own. Add a "
            "method instead, in quotes: \"+compare.methods.mine=['strategy=median']\""
        )
    if config["dry_run"]:
        terminal.print_comparison_plan(plan)
        terminal.print_folder(folder_path.resolve())
        return

    def hold_one(chosen: list[str], place: Path) -> None:
        begun = (place / "config.yaml").exists()
        own = [f"resume={place}"] if begun else [f"run_dir={place}"]
        _hold_one(hydra.compose("config", [*chosen, *own]), place, chosen)

    folder = RunFolder(folder_path)
    with folder.lock():
        source = {"study": config["study"]["name"], **origin(overrides)}
        folder.start(config, bool(config["resume"]), source)
        with _to_go_on_with(folder.path):
            table = compare(plan, folder, watched, hold_one)
            write_comparison(plan, folder)
    if config["format"] == "json":
        terminal.print_json(folder, "compare.json")
    else:
        terminal.print_comparison(plan, table, folder)
    terminal.print_folder(folder.path.resolve())


def _campaign(config: DictConfig, folder_path: Path, overrides: list[str]) -> None:
    """Run measurements that are no study."""
    from simulations import terminal
    from simulations.campaigns import Campaign
    from simulations.provenance import now, origin
    from simulations.results import RunFolder

    campaign: Campaign = build(config["campaign"])
    plan = campaign.plan()
    if config["dry_run"]:
        terminal.print_lines([*plan, "Nothing was measured. Run it without dry_run=true."])
        terminal.print_folder(folder_path.resolve())
        return
    folder = RunFolder(folder_path)
    with folder.lock():
        folder.start(config, bool(config["resume"]), origin(overrides))
        source = folder.read_json("provenance.json")
        log = terminal.set_up_logging(folder.path, config["progress"] == "auto")
        for line in plan:
            log.info("%s", line)
        started = time.process_time()
        with _to_go_on_with(folder.path):
            lines = campaign.run(folder)
        spent = round(time.process_time() - started, 2)
        whole = spent + source.get("cpu_seconds", 0.0)  # of all the times it was gone on with
        folder.write_json("provenance.json", {**source, "finished": now(), "cpu_seconds": whole})
    terminal.print_lines([*lines, f"CPU      {spent:.1f} s in this process"])
    terminal.print_folder(folder.path.resolve())


def _check_words(config: DictConfig) -> None:
    for key, legal in (("format", ("text", "json")), ("progress", ("auto", "none"))):
        if config[key] not in legal:
            raise FedpactError(f"{key} is {config[key]!r}; legal are {', '.join(legal)}.")
    if not isinstance(config["dry_run"], bool):
        raise FedpactError(f"dry_run is {config['dry_run']!r}; legal are true and false.")


def _resumed(overrides: list[str], folder: Path) -> DictConfig:
    """The configuration of the run to go on with, with what may be changed for it.

    Raises:
        FedpactError: there is no such run, or an override would change its study.
    """
    saved = folder / "config.yaml"
    try:
        old = OmegaConf.load(saved)
        first = json.loads((folder / "provenance.json").read_text())["overrides"]
    except (OSError, ValueError, KeyError) as fault:
        raise FedpactError(
            f"resume={folder}: there is no {saved}, or no provenance.json beside it. Give the "
            "folder of a run, as printed in the last line of its output."
        ) from fault
    new = hydra.compose("config", [*first, *overrides])
    changed = [
        key
        for key in _differences(
            OmegaConf.to_container(old, resolve=True), OmegaConf.to_container(new, resolve=True)
        )
        if key.split(".")[0] not in FREE and not key.endswith("training.device")
    ]
    if changed:
        raise FedpactError(
            f"resume goes on with the study in {saved}; this would change it: "
            f"{', '.join(changed[:5])}. Leave it out, or start a new run without resume."
        )
    return new


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new}, key=str)
        return [
            d
            for key in keys
            for d in _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
        ]
    return [] if old == new else [path]


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")
def _application(config: DictConfig) -> None:
    settings = HydraConfig.get()
    overrides = list(settings.overrides.task)
    try:
        if config["resume"]:
            config = _resumed(overrides, Path(str(config["resume"])))
        status = hold(config, Path(settings.runtime.output_dir), overrides)
    except FedpactError as fault:
        made = Path(settings.runtime.output_dir).resolve()
        if made.is_dir() and made != Path.cwd() and not any(made.iterdir()):
            made.rmdir()  # Hydra made it before anything was checked
        sys.exit(_complain(str(fault)))  # before Hydra adds a line of its own
    if status:
        sys.exit(status)


def _once_more(others: Callable[[Any], object], dropped: Any) -> None:
    """Python drops what is raised where nobody can catch it, as in a weak reference's callback; a
    Ctrl-C that was raised there is given again, when that is over.

    By a signal, which ends a wait, too; SIGINT is ignored in what a shell starts in the background.
    """
    both = (signal.SIGINT, signal.SIGTERM)
    stops = [one for one in both if signal.getsignal(one) is signal.default_int_handler]
    if issubclass(dropped.exc_type, KeyboardInterrupt) and stops:
        here = threading.main_thread().ident
        again = threading.Timer(AGAIN_S, signal.pthread_kill, (here, stops[0]))
        again.daemon = True
        again.start()
    else:
        others(dropped)


def main() -> None:
    """The console script. Exit status 2 for a mistake that a person can mend."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come to us, not to Hydra's printer
    from hydra.core.global_hydra import GlobalHydra

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's Ctrl-C
    sys.unraisablehook = partial(_once_more, sys.unraisablehook)
    for stop_signal in (signal.SIGINT, signal.SIGTERM):  # when all is done there is nothing to stop
        atexit.register(signal.signal, stop_signal, signal.SIG_IGN)
    atexit.register(gc.freeze)  # or else the interpreter's end takes seconds to look for garbage
    try:
        sys.argv[1:] = spelled_out(sys.argv[1:])
        _application()
    except FedpactError as fault:
        sys.exit(_complain(str(fault)))
    except (FileExistsError, NotADirectoryError, PermissionError) as fault:
        sys.exit(_complain(f"{fault.strerror}: {fault.filename}. Choose another run_dir=..."))
    except (HydraException, OmegaConfBaseException) as fault:
        GlobalHydra.instance().clear()
        sys.exit(_complain(explain(fault)))
    except KeyboardInterrupt as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must leave no process behind
        told = str(stop) or "stopped; what was finished is in the run's folder"
        sys.stderr.write(f"fedpact: {told}\n")
        _close_engines()
        one_ray = sys.modules.get("simulations.engines.one_ray")
        if one_ray is not None and one_ray.cut_off():
            os._exit(130)
        sys.exit(130)
    finally:
        _close_engines()


def _complain(text: str) -> int:
    sys.stderr.write(f"fedpact: {text}\n")
    return 2


def _close_engines() -> None:
    """Stop a warm Ray, if this process started one."""
    module = sys.modules.get("simulations.engines.ray_actors")
    if module is not None:
        module.RayActors().close()


if __name__ == "__main__":
    main()
