"""pfl-research: federated averaging in one process, as its own tutorials write it.

`make bench-peers` makes an interpreter that has it. Its loop keeps one model, and takes firms and
their examples in the order of the workload.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from simulations.bench.peers.workload import Workload, one_thread, tell


@final
class Classifier(nn.Module):
    """The workload's model, with the two methods that pfl asks for."""

    def __init__(self, work: Workload) -> None:
        super().__init__()
        self.inner = work.build()
        self._weighted = import_module("pfl.metrics").Weighted

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.inner(features)
        return scores

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(self(features), labels)

    @torch.no_grad()
    def metrics(self, features: Tensor, labels: Tensor) -> Mapping[str, Any]:
        total = float(self.loss(features, labels)) * len(labels)
        return {"loss": self._weighted(total, len(labels))}


@final
class Marks:
    """pfl's callback: what each round took."""

    def __init__(self) -> None:
        self.cpu, self.wall = list[float](), list[float]()
        self._none: Callable[[], Any] = import_module("pfl.metrics").Metrics

    def on_train_begin(self, *, model: Any) -> Any:
        self._last = time.process_time(), time.perf_counter()
        return self._none()

    def after_central_iteration(
        self, aggregate_metrics: Any, model: Any, *, central_iteration: int
    ) -> tuple[bool, Any]:
        now = time.process_time(), time.perf_counter()
        self.cpu.append(now[0] - self._last[0])
        self.wall.append(now[1] - self._last[1])
        self._last = now
        return False, self._none()

    def on_train_end(self, *, model: Any) -> None:
        return


def main() -> None:
    """Hold the workload of the file that is named, on the device that is named, else the CPU."""
    one_thread()
    device = [*sys.argv, "cpu"][2]
    os.environ["PFL_PYTORCH_DEVICE"] = device  # read when pfl is imported
    work = Workload.read(Path(sys.argv[1]), device)
    algorithm, averaging, params, simulate, weighting, torch_model, data, torch_data = (
        import_module(f"pfl.{name}")
        for name in (
            *("algorithm.base", "algorithm.federated_averaging", "hyperparam.base"),
            *("aggregate.simulate", "aggregate.weighting", "model.pytorch"),
            *("data.federated_dataset", "data.pytorch"),
        )
    )
    module = Classifier(work)
    model = torch_model.PyTorchModel(
        module,
        lambda parameters, lr: torch.optim.SGD(parameters, lr, work.momentum),
        torch.optim.SGD(module.parameters(), lr=1.0),  # the mean difference, as it is
    )

    def examples(user: tuple[int, int]) -> Any:
        round_, firm = user
        rows = work.rows(round_)[firm]
        return torch_data.PyTorchTensorDataset((work.features[rows], work.labels[rows]))

    users = iter([(r, firm) for r in range(work.rounds) for firm in range(work.firms)])
    firms = data.FederatedDataset(examples, lambda: next(users))
    marks = Marks()
    averaging.FederatedAveraging().run(
        algorithm.NNAlgorithmParams(
            central_num_iterations=work.rounds,
            evaluation_frequency=work.rounds,  # the first round only, which does not count
            train_cohort_size=work.firms,
            val_cohort_size=0,
        ),
        simulate.SimulatedBackend(firms, firms, [weighting.WeightByDatapoints()]),
        model,
        params.NNTrainHyperParams(
            local_batch_size=work.batch,
            local_num_epochs=1,
            local_learning_rate=work.learning_rate,
        ),
        params.NNEvalHyperParams(local_batch_size=None),
        callbacks=[marks],
        send_metrics_to_platform=False,
    )
    tell(marks.cpu, marks.wall, work.loss(module), work.firms, pfl=version("pfl"))


if __name__ == "__main__":
    main()
