"""One workload with one of our engines, in its own process: what its rounds took, and the loss.

`python -m simulations.bench.held ENGINE WORKLOAD` prints a line of JSON, like the peers.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from parties.exchange import FedpactError
from simulations.bench.tree import keep_orphans
from simulations.bench.workloads import find_workload, loss_of
from simulations.build import build
from simulations.engines import Job


def main() -> None:
    """Hold the study, and print what it took."""
    engine, name, *words = sys.argv[1:]
    workload = find_workload(name)
    torch.set_num_threads(1)
    keep_orphans()
    config = workload.config(engine)
    for word in words:  # engine.workers=4
        key, _, value = word.partition("=")
        config["engine"][key.removeprefix("engine.")] = json.loads(value)
    with tempfile.TemporaryDirectory(prefix="fedpact-bench-") as made:
        folder = Path(made)
        marks = folder / "marks.jsonl"
        config["strategy"] |= {
            "_target_": "simulations.bench.marked.Marked",
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
        with np.load(marks.with_suffix(".npz")) as found:
            loss = loss_of({key: found[key] for key in found}, workload)
    each = {
        kind: np.diff([mark[kind] for mark in told]).round(4).tolist()
        for kind in ("cpu_s", "wall_s")
    }
    print(json.dumps({**each, "loss": loss, "trainings": workload.firms}))


if __name__ == "__main__":
    main()
