"""Flower's own simulation, with a client as Flower's PyTorch tutorial writes it.

The client builds a model for each message, loads what came, trains it with torch.optim and answers
with an ArrayRecord and a MetricRecord; FedAvg combines. Only the data are kept in a process, since
reading files is no framework's fault. CPU is that of all processes, from round to round.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from functools import lru_cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from simulations.bench.peers.workload import Workload, one_thread, tell
from simulations.bench.tree import keep_orphans, tree_cpu_seconds
from simulations.engines.flower_run import flower_run

TIMEOUT_S = 900.0
GPU_SHARE = 0.5  # of a client: two at a time on a GPU, as many as our Ray actors
app, server = ClientApp(), ServerApp()


@lru_cache(maxsize=1)
def load_data(path: str) -> Workload:
    """The firms' data, once a process."""
    one_thread()
    return Workload.read(Path(path))


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train the model on local data."""
    work = load_data(str(context.run_config["workload"]))
    server_round = int(str(msg.content.config_records["config"]["server-round"]))
    rows = work.rows(server_round - 1)[int(str(context.node_config["partition-id"]))]
    device = str(context.run_config["device"])
    model = work.build()
    model.load_state_dict(msg.content.array_records["arrays"].to_torch_state_dict())
    model.to(device).train()
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), work.learning_rate, work.momentum)
    running_loss = 0.0
    for x, y in work.steps(rows):
        optimizer.zero_grad()
        loss = criterion(model(x.to(device)), y.to(device))
        loss.backward()
        optimizer.step()
        running_loss += loss.item() * len(x)
    metrics = MetricRecord({"train_loss": running_loss / len(rows), "num-examples": len(rows)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=msg)


@server.main()
def main_(grid: Grid, context: Context) -> None:
    """Hold the rounds, and write what each took and the final loss."""
    given = context.run_config
    work = load_data(str(given["workload"]))
    while len(list(grid.get_node_ids())) < work.firms:
        time.sleep(0.05)
    marks: list[tuple[float, float]] = []

    def mark(server_round: int, arrays: ArrayRecord) -> None:
        marks.append((tree_cpu_seconds(int(str(given["root"]))), time.perf_counter()))

    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=work.firms)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(work.build().state_dict()),
        train_config=ConfigRecord(),
        num_rounds=work.rounds,
        evaluate_fn=mark,
    )
    model = work.build()
    model.load_state_dict(result.arrays.to_torch_state_dict())
    cpu, wall = ([b[i] - a[i] for a, b in pairwise(marks)] for i in (0, 1))
    found = {"cpu": cpu, "wall": wall, "loss": work.loss(model)}
    Path(str(given["result"])).write_text(json.dumps(found))


def main() -> None:
    """Hold the workload of the file that is named, on the device that is named, by `flwr run`."""
    one_thread()
    keep_orphans()
    path, device = Path(sys.argv[1]).resolve(), [*sys.argv, "cpu"][2]
    firms = Workload.read(path).firms
    with tempfile.TemporaryDirectory(prefix="fedpact-bench-") as folder:
        result = Path(folder) / "result.json"
        flower_run(
            serverapp="simulations.bench.peers.flower_tutorial:server",
            clientapp="simulations.bench.peers.flower_tutorial:app",
            run_config={
                "workload": str(path),
                "result": str(result),
                "root": os.getpid(),
                "device": device,
            },
            supernodes=firms,
            client_cpus=1,
            client_gpus=0.0 if device == "cpu" else GPU_SHARE,
            timeout_s=TIMEOUT_S,
            home=Path(folder) / "home",
        )
        found = json.loads(result.read_text())
    versions = {name: version(name) for name in ("flwr", "ray")}
    tell(found["cpu"], found["wall"], found["loss"], firms, **versions)


if __name__ == "__main__":
    main()
