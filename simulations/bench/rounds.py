"""No-op rounds a second of each engine, as ratios."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from flwr.serverapp import Grid

from simulations.bench.row import Row, add_count


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
    from simulations.engines.grid import InlineGrid, contexts_of
    from simulations.engines.ray_actors import RayActors
    from simulations.engines.ray_grid import RayGrid

    names = [f"firm_{i}" for i in range(firms)]
    found: dict[str, list[float]] = {"inline": [], "ray": [], "flower": []}
    engine = RayActors(workers=min(firms, 2), num_cpus=0.5)
    try:
        for _ in range(repeats):
            contexts = contexts_of(names, "party", {})
            found["inline"].append(_rate(InlineGrid(noop.client, contexts), 300))
            actors = engine.start(min(firms, 2))
            grid = RayGrid(actors, "simulations.bench.noop:client", contexts)
            found["ray"].append(_rate(grid, 300))
            # Ray's idle processes would slow the next engine down.
            engine.close()
            found["flower"].append(_flower_rate(firms, 20))
    finally:
        engine.close()
    return found


def _rate(grid: Grid, count: int) -> float:
    from simulations.bench.noop import one_round

    one_round(grid)
    return count / sum(one_round(grid) for _ in range(count))


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
