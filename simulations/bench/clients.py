"""A firm's training with each engine, beside the frameworks that others use.

Federated averaging of a hundred firms on three workloads: everybody gets the same examples in the
same order and the same model to start from, and a row whose final loss is not the plain loop's is
void. Each row is held in processes of its own, repeats take turns, and what counts is the CPU time
of the whole process tree between the first round and the last.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import final

import numpy as np
import torch

from parties.exchange import FedpactError
from simulations.bench.canonicalize import PEER, ROOT
from simulations.bench.peers.workload import Workload as Examples
from simulations.bench.row import Bar, Row, add_count, apart
from simulations.bench.tree import tree_memory_mb
from simulations.bench.workloads import WORKLOADS, Workload, find_workload

LOOP, TUNED, BOUND = "plain loop", "tuned plain loop", "one model, no firms"
FLOWER, PFL = "Flower's tutorial", "pfl-research"
ENGINES = {
    "inline": "inline",
    "batched": "batched",
    "ray": "ray",
    "ray, one actor": "ray engine.workers=1",
    "ray, batched": "ray engine.batched=true",
    "flower": "flower",
}
MODEL = "model.npz"
PEERS = {
    LOOP: "plain_loop",
    TUNED: "plain_loop",
    BOUND: "centralised",
    PFL: "pfl_loop",
    FLOWER: "flower_tutorial",
}
KEEP = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": str(2**25)}
"""What has glibc keep the memory that a process frees: else some loops get it anew every step."""
GPU_SHARES = {"ray": 0.5, "ray, one actor": 1.0, "ray, batched": 0.5, "flower": 0.5}
"""Of an actor, or a client."""
PATIENCE_S = 1800.0  # a row
LOOK_S = 0.3  # between two looks at the memory
MOST_MB = {"inline": 450, "ray": 1300, "ray, batched": 1300}
OVER_FLOWER = 1.1  # what engine=flower may take of bare Flower's CPU


@final
@dataclass(frozen=True)
class Held:
    """What a row took.

    Args:
        cpu_ms: of a firm's training, all of the round that falls to it; wall_ms: of the best round.
        loss: final; peak_mb: of all processes.
    """

    cpu_ms: float
    wall_ms: float
    loss: float
    peak_mb: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_count(parser, "--repeats", 3, "how often all are measured, in turn; 9 minutes each")
    parser.add_argument(
        "--workloads",
        nargs="+",
        default=list(WORKLOADS),
        help=f"some of {', '.join(WORKLOADS)} (all); the last two need Debian's "
        "dataset-fashion-mnist",
    )
    names = (*PEERS, *ENGINES)
    parser.add_argument(
        "--who",
        nargs="+",
        default=list(names),
        help=f"which rows: some of {', '.join(map(repr, names))} (all); {TUNED!r} is the cnn's, on "
        "a CPU: it has our layers, and keeps its memory",
    )
    parser.add_argument(
        "--device",
        default="cpu",
        help="cpu (default), or cuda: all train on this machine's first GPU, which Ray's actors "
        "share; wall clocks are printed too, without the targets, which are for CPUs",
    )
    parser.add_argument(
        "--peer", type=Path, default=PEER, help="a Python that has pfl (that of make bench-peers)"
    )


def rows(chosen: argparse.Namespace) -> list[Row]:
    """A row for each who was asked for, printed; the plain loop is always among them."""
    legal = (*PEERS, *ENGINES)
    if odd := sorted(set(chosen.who) - set(legal)):
        raise FedpactError(f"--who has {odd}; legal are {', '.join(map(repr, legal))}.")
    device = named_device(chosen.device)
    who = [name for name in legal if name in chosen.who or name == LOOP]
    if PFL in who and not chosen.peer.exists():
        print(f"({PFL} is left out: {chosen.peer} is not there; make bench-peers installs it)")
        who.remove(PFL)
    found = []
    for workload in [find_workload(name) for name in chosen.workloads]:
        if workload.missing:
            print(f"({workload.name} is left out: {workload.missing})")
            continue
        found += _rows(workload, who, chosen.repeats, chosen.peer, device)
    return found


def named_device(device: str) -> str:
    """`device`, if it is here.

    Raises:
        FedpactError: it is not, or it is neither cpu nor cuda.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device != "cpu" and not (device == "cuda" and gpus):
        raise FedpactError(
            f"--device is {device!r}, and torch {torch.__version__} finds {gpus} GPUs here; legal "
            "are cpu and, with a GPU, cuda. Leave it out for cpu."
        )
    return device


def _rows(
    workload: Workload, who: Sequence[str], repeats: int, peer: Path, device: str
) -> list[Row]:
    tuned = workload.ours and device == "cpu"  # on a GPU our layers are the usual ones
    held: dict[str, list[Held]] = {name: [] for name in who if name != TUNED or tuned}
    with tempfile.TemporaryDirectory(prefix="fedpact-bench-") as made:
        path = Path(made) / "workload.npz"
        workload.write(path)
        for repeat in range(repeats):
            for name in list(held):
                # Minutes pass until the first figure.
                print(f"({workload.name} {repeat + 1}/{repeats}: {name})", file=sys.stderr)
                try:
                    held[name].append(_hold(name, workload, path, peer, device))
                except FedpactError as fault:
                    if name == LOOP:  # all others are told beside it
                        raise
                    print(f"({name} is left out: {fault})")
                    del held[name]
    found = [_beside_loop(workload, name, held[name], held[LOOP]) for name in held if name != LOOP]
    found += _beside_tuned(workload, held)
    found += _beside_flower(workload, held)
    walls = _walls(workload, held)
    if device != "cpu":
        # The bars are for CPUs. What a GPU does costs the CPU a wait, so the wall clock counts too.
        card = torch.cuda.get_device_name(device)
        found = [replace(row, what=f"{row.what}, {card}", bar=None) for row in (*found, *walls)]
        walls = []
    found += [
        Row(
            f"Peak memory, {workload.name}",
            name,
            tuple(one.peak_mb for one in held[name]),
            "MB",
            tuple(one.peak_mb / most for one in held[name]),
            f"{most} MB",
            Bar(1),
        )
        for name, most in MOST_MB.items()
        if name in held and device == "cpu"
    ]
    loop = held[LOOP]
    print(
        f"{workload.name}: {workload.firms} firms a round, {repeats} alternated repeats; "
        f"{LOOP} {statistics.median(h.cpu_ms for h in loop):.3f} ms of CPU, "
        f"{max(h.peak_mb for h in loop):.0f} MB"
    )
    for what, same in groupby(found, lambda row: row.what):
        print(f" {what}")
        for row in same:
            print(f"  {_line(row)}")
    return [*found, *walls]


def _line(row: Row) -> str:
    """A row in words."""
    value = f"{row.value:9.0f}" if row.unit == "MB" else f"{row.value:9.3f}"
    told = f" [{row.low:.2f} to {row.high:.2f}]" if len(row.ratios) > 1 else ""
    peak = f", {row.peak_mb:.0f} MB" if row.peak_mb else ""
    bar = f", {row.bar}: {row.verdict}" if row.bar or row.void else ""
    void = f" ({row.void})" if row.void else ""
    return (
        f"{row.name:20} {value} {row.unit}  {row.ratio:6.2f} x {row.beside}{told}{peak}{bar}{void}"
    )


def _walls(workload: Workload, held: Mapping[str, Sequence[Held]]) -> list[Row]:
    """Best wall clocks: of CPUs for the report only, since a busy one changes them threefold."""
    best = {name: min(one.wall_ms for one in told) for name, told in held.items()}
    what = f"Best wall clock of a firm's training, {workload.name}"
    return [
        Row(what, name, (wall,), "ms", (wall / best[LOOP],), LOOP) for name, wall in best.items()
    ]


def _beside_loop(workload: Workload, name: str, ours: Sequence[Held], loop: Sequence[Held]) -> Row:
    bar = workload.bars.get(name)
    # One model without firms has another loss: it is the bound, and claims nothing.
    void = "" if name == BOUND else apart(ours[-1].loss, loop[-1].loss)
    return Row(
        f"CPU of a firm's training, {workload.name}",
        name,
        tuple(one.cpu_ms for one in ours),
        "ms",
        tuple(one.cpu_ms / other.cpu_ms for one, other in zip(ours, loop, strict=True)),
        LOOP,
        Bar(bar) if bar else None,
        void,
        max(one.peak_mb for one in ours),
    )


def _beside_tuned(workload: Workload, held: Mapping[str, Sequence[Held]]) -> list[Row]:
    """What an engine itself adds, where a part of the difference to others is our layers'.

    The loop has the same layers, and keeps its memory.
    """
    return [
        Row(
            f"CPU beside a plain loop with our layers and memory kept, {workload.name}",
            name,
            tuple(one.cpu_ms for one in held[name]),
            "ms",
            tuple(a.cpu_ms / b.cpu_ms for a, b in zip(held[name], held[TUNED], strict=True)),
            TUNED,
            void=apart(held[name][-1].loss, held[TUNED][-1].loss),
        )
        for name in ENGINES
        if name in held and TUNED in held
    ]


def _beside_flower(workload: Workload, held: Mapping[str, Sequence[Held]]) -> list[Row]:
    """Times less than Flower's own simulation; and what engine=flower adds to it."""
    if FLOWER not in held:
        return []
    found = []
    for name in ("inline", "ray", "ray, batched", "flower"):
        if name not in held:
            continue
        pairs = list(zip(held[name], held[FLOWER], strict=True))
        less = name != "flower"
        ratios = (b.cpu_ms / a.cpu_ms if less else a.cpu_ms / b.cpu_ms for a, b in pairs)
        found.append(
            Row(
                f"CPU beside Flower's own simulation, {workload.name}",
                name,
                tuple(one.cpu_ms for one in held[name]),
                "ms",
                tuple(ratios),
                f"less than {FLOWER}" if less else FLOWER,
                Bar(workload.less_than_flower, least=True) if less else Bar(OVER_FLOWER),
                apart(held[name][-1].loss, held[LOOP][-1].loss),
            )
        )
    return found


def _hold(name: str, workload: Workload, path: Path, peer: Path, device: str) -> Held:
    """One row, in processes of its own."""
    if name in PEERS:
        interpreter = str(peer) if name == PFL else sys.executable
        command = [interpreter, "-m", f"simulations.bench.peers.{PEERS[name]}", str(path), device]
        command += [workload.ours] * (name == TUNED)
    else:
        engine, *words = ENGINES[name].split()
        command = [sys.executable, "-m", "simulations.bench.held", str(path.with_name(MODEL))]
        if device != "cpu" and name in GPU_SHARES:
            words.append(f"engine.num_gpus={GPU_SHARES[name]:g}")
        command += [engine, workload.name, device, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment |= KEEP if name == TUNED else {}
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        running = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=said, stderr=errors, text=True
        )
        peak, deadline = 0.0, time.monotonic() + PATIENCE_S
        try:
            while running.poll() is None and time.monotonic() < deadline:
                peak = max(peak, tree_memory_mb(running.pid))
                time.sleep(LOOK_S)
        finally:
            if running.poll() is None:
                running.terminate()
            running.wait()
        said.seek(0)
        errors.seek(0)
        lines = said.read().splitlines()
        if running.returncode or not lines:
            raise FedpactError(
                f"{name} on {workload.name} ended with {running.returncode}: {errors.read()[-800:]}"
            )
    told = json.loads(lines[-1])
    cpu_s, wall_s = (told[kind][-workload.rounds :] for kind in ("cpu_s", "wall_s"))
    firms = workload.firms
    loss = told["loss"] if name in PEERS else _loss(path)
    return Held(1000 * sum(cpu_s) / len(cpu_s) / firms, 1000 * min(wall_s) / firms, loss, peak)


def _loss(path: Path) -> float:
    """Of the final model of an engine, on the examples of all firms."""
    work = Examples.read(path)
    module = work.build()
    with np.load(path.with_name(MODEL)) as found:
        module.load_state_dict({key: torch.from_numpy(found[key]) for key in found})
    return work.loss(module)
