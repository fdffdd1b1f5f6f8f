"""Federated averaging as a plain loop: one model, firm by firm, all of it in place.

Parameters and their gradients are views of one vector each, so that a firm's start, its steps and
the sum of all firms are a few calls, however many layers there are.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from simulations.bench.peers.workload import Workload, done, one_thread, tell


def views(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Parts of a vector in the shapes of others."""
    parts = torch.split(vector, [one.numel() for one in like])
    return [part.view_as(one) for part, one in zip(parts, like, strict=True)]


def main() -> None:
    """Hold the workload of the file that is named, on the device that is named, else the CPU."""
    one_thread()
    work = Workload.read(Path(sys.argv[1]), *sys.argv[2:])
    module = work.build().train()
    parameters: list[Tensor] = list(module.parameters())
    weights = torch.cat([p.detach().flatten() for p in parameters])
    slope, speed, common = torch.zeros_like(weights), torch.zeros_like(weights), weights.clone()
    for parameter, value, gradient in zip(
        parameters, views(weights, parameters), views(slope, parameters), strict=True
    ):
        parameter.data, parameter.grad = value, gradient
    cpu, wall = [], []
    for round_ in range(work.rounds):
        marks = time.process_time(), time.perf_counter()
        total = torch.zeros_like(weights, dtype=torch.float64)
        for rows in work.rows(round_):
            weights.copy_(common)
            speed.zero_()
            for x, y in work.steps(rows):
                slope.zero_()
                torch.autograd.backward(functional.cross_entropy(module(x), y))
                weights.sub_(speed.mul_(work.momentum).add_(slope), alpha=work.learning_rate)
            total.add_(weights, alpha=len(rows))
        common.copy_(total.div_(len(work.labels)))
        done(common.device)
        cpu.append(time.process_time() - marks[0])
        wall.append(time.perf_counter() - marks[1])
    weights.copy_(common)
    tell(cpu, wall, work.loss(module), work.firms)


if __name__ == "__main__":
    main()
