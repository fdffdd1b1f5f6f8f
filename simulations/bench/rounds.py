"""No-op rounds a second of each engine, as ratios."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from parties.exchange import Enrol, FedpactError
from parties.memory import Memory
from simulations.bench.row import Row, add_count
from simulations.engines.direct import Crew


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_count(parser, "--firms", 2, "that are asked in a round")
    add_count(parser, "--repeats", 3, "in which engines take turns")


def rows(chosen: argparse.Namespace) -> list[Row]:
    """A row an engine, printed: median rounds/s, range, and ratio to Flower's own simulation."""
    found = rounds(chosen.firms, chosen.repeats)
    what = f"No-op rounds a second, {chosen.firms} firms"
    print(f"{what}, {chosen.repeats} alternated repeats")
    told = []
    for engine, rates in found.items():
        ratios = [ours / theirs for ours, theirs in zip(rates, found["flower"], strict=True)]
        print(
            f"{engine:8} {statistics.median(rates):9.1f} /s"
            f"  [{min(rates):.1f} to {max(rates):.1f}]"
            f"  {statistics.median(ratios):7.1f} x Flower's simulation"
        )
        told.append(Row(what, engine, tuple(rates), "/s", tuple(ratios), "Flower's simulation"))
    return told


def rounds(firms: int, repeats: int) -> dict[str, list[float]]:
    """No-op rounds a second, by engine, one figure a repeat; engines take turns."""
    from simulations.bench import noop
    from simulations.engines.direct import Here
    from simulations.engines.one_firm import OneFirm
    from simulations.engines.ray_actors import RayActors
    from simulations.engines.ray_crew import RayCrew

    names = [f"firm_{i}" for i in range(firms)]
    found: dict[str, list[float]] = {"inline": [], "ray": [], "flower": []}
    engine = RayActors(workers=min(firms, 2), num_cpus=0.5)
    try:
        for _ in range(repeats):
            here = {name: OneFirm(name, noop.firm(name).answer, Memory()) for name in names}
            found["inline"].append(_rate(Here(here), 300))
            actors = engine.start(min(firms, 2))
            crew = RayCrew(actors, "simulations.bench.noop:firm", (), names)
            found["ray"].append(_rate(crew, 300))
            # Ray's idle processes would slow the next engine down.
            engine.close()
            found["flower"].append(_flower_rate(firms, 20))
    finally:
        engine.close()
    return found


def _rate(crew: Crew, count: int) -> float:
    questions = dict.fromkeys(crew.names, Enrol(0))
    crew.ask(questions, 60, facts=True)
    started = time.perf_counter()
    for _ in range(count):
        if any(reply.answer is None for reply in crew.ask(questions, 60, facts=True).values()):
            raise FedpactError("a no-op question was not answered; see whether Ray's workers live.")
    return count / (time.perf_counter() - started)


def _flower_rate(firms: int, count: int) -> float:
    from simulations.engines.flower_run import flower_run

    with tempfile.TemporaryDirectory(prefix="fedpact-bench-") as folder:
        result = Path(folder) / "seconds.json"
        flower_run(
            serverapp="simulations.bench.noop:server",
            clientapp="simulations.bench.noop:client",
            run_config={"firms": firms, "rounds": count, "result": str(result)},
            supernodes=firms,
            client_cpus=1,
            client_gpus=0.0,
            timeout_s=300.0,
            home=Path(folder) / "home",
        )
        return count / float(sum(json.loads(result.read_text())))
