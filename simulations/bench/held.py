"""One workload with one of our engines, in its own process: what its rounds took, and the loss.

`python -m simulations.bench.held MODEL ENGINE WORKLOAD DEVICE` prints a line of JSON, as the peers
do, but for the loss: the final model goes to the .npz file that is named.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from parties.exchange import FedpactError
from simulations.bench.tree import keep_orphans
from simulations.bench.workloads import find_workload
from simulations.build import build
from simulations.engines import Job


def main() -> None:
    """Hold the study, and print what it took."""
    model, engine, name, device, *words = sys.argv[1:]
    workload = find_workload(name)
    torch.set_num_threads(1)
    keep_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the engine is closed first
    config = workload.config(engine, device)
    for word in words:  # engine.workers=4
        key, _, value = word.partition("=")
        config["engine"][key.removeprefix("engine.")] = json.loads(value)
    with tempfile.TemporaryDirectory(prefix="fedpact-bench-") as made:
        folder = Path(made)
        marks = folder / "marks.jsonl"
        config["strategy"] |= {
            "_target_": "simulations.bench.timed_fedavg.TimedFedAvg",
            "marks": str(marks),
            "root": os.getpid(),
        }
        running = build(config["engine"])
        try:
            running.hold(
                Job(json.dumps(config, sort_keys=True), folder, tuple(sorted(config["parties"])))
            )
        finally:
            running.close()
        told = [json.loads(line) for line in marks.read_text().splitlines()]
        if len(told) != 1 + workload.rounds or any(m["updates"] != workload.firms for m in told):
            raise FedpactError(f"{engine} lost firms or rounds: {told}")
        shutil.copyfile(marks.with_suffix(".npz"), model)
    wall = np.diff([mark["wall_s"] for mark in told]).round(4).tolist()
    cpu = [(told[-1]["cpu_s"] - told[0]["cpu_s"]) / workload.rounds] * workload.rounds
    print(json.dumps({"cpu_s": cpu, "wall_s": wall, "trainings": workload.firms}))


if __name__ == "__main__":
    main()
