"""One model on the examples of all firms, in batches that a cache holds: the bound, no federation.

It takes as many examples a round as all firms together, in fewer and larger steps, so its loss is
another one: what nobody who trains these models with torch can do much cheaper, not a peer.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from simulations.bench.peers.workload import Workload, done, one_thread, tell

CACHE = 2**24  # bytes: what cores share today; more examples a step gain little
LEAST, MOST = 16, 1024  # examples a step


def main() -> None:
    """Hold the workload of the file that is named, on the device that is named, by one model."""
    one_thread()
    work = Workload.read(Path(sys.argv[1]), *sys.argv[2:])
    module = work.build().train()
    batch = cached_batch(module, work.features[:1])
    parameters: list[Tensor] = list(module.parameters())
    speeds = [torch.zeros_like(p) for p in parameters]
    mix = torch.Generator().manual_seed(0)
    cpu, wall = [], []
    for _ in range(work.rounds):
        marks = time.process_time(), time.perf_counter()
        order = torch.randperm(len(work.labels), generator=mix).to(work.features.device)
        features, labels = work.features[order], work.labels[order]
        for x, y in zip(torch.split(features, batch), torch.split(labels, batch), strict=True):
            loss = functional.cross_entropy(module(x), y)
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                torch._foreach_mul_(speeds, work.momentum)
                torch._foreach_add_(speeds, gradients)
                torch._foreach_sub_(parameters, speeds, alpha=work.learning_rate)
        done(work.features.device)
        cpu.append(time.process_time() - marks[0])
        wall.append(time.perf_counter() - marks[1])
    tell(cpu, wall, work.loss(module), work.firms, batch=str(batch))


@torch.inference_mode()
def cached_batch(module: nn.Sequential, example: Tensor) -> int:
    """So many examples that they, and what layers make of them, fill the cache: a power of 2."""
    size, values = example.numel(), example
    for layer in module:
        values = layer(values)
        size += values.numel()
    fits = max(CACHE // (size * example.element_size()), 1)
    return min(max(1 << (fits.bit_length() - 1), LEAST), MOST)


if __name__ == "__main__":
    main()
