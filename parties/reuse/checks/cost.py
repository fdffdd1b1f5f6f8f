"""Checks 11 to 13: can the firm afford to run it, and to train it on?"""

from __future__ import annotations

import copy
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from parties.reuse.checks import Case, Finding, judged

MB = 1e6


def _within(values: Mapping[str, float], limits: Mapping[str, float | None], do: str) -> Finding:
    over = [
        f"{name} is {values[name]:.4g}, legal is {limit:.4g}"
        for name, limit in limits.items()
        if limit is not None and not values[name] <= limit
    ]
    return judged(f"{'; '.join(over)}. {do}" if over else "", dict(values), dict(limits))


def compute(case: Case) -> Finding:
    """Check 11: parameters, megabytes, and MFLOPs a case forward and with the way back."""
    arrays = case.artifact.weights.values()
    forward, both = flops(case.module, case.tensor(case.batch(1)))
    values = {
        "parameters": sum(p.numel() for p in case.module.parameters()),
        "model_mb": sum(a.nbytes for a in arrays) / MB,
        "forward_mflops": forward / 1e6,
        "training_mflops": both / 1e6,
    }
    gate = case.gate
    limits = {
        "parameters": gate.max_parameters,
        "model_mb": gate.max_model_mb,
        "forward_mflops": gate.max_forward_mflops,
        "training_mflops": gate.max_training_mflops,
    }
    return _within(values, limits, "Ask for a smaller model, or raise the budget in the policy.")


def flops(module: nn.Module, rows: torch.Tensor) -> tuple[int, int]:
    """Floating-point operations of a pass forward, and of one with the way back.

    A product and its sum are two; only products of matrices and convolutions are counted.

    >>> flops(nn.Linear(3, 5, bias=False), torch.zeros(1, 3))
    (30, 60)
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        module(rows)
    with FlopCounterMode(display=False) as both:
        torch.autograd.grad(module(rows).sum(), parameters, allow_unused=True)
    return forward.get_total_flops(), both.get_total_flops()


def memory(case: Case) -> Finding:
    """Check 12: peak megabytes of tensors, in a pass and in one step of fine-tuning."""
    gate = case.gate
    rows = case.tensor(case.batch(gate.batch))
    model = copy.deepcopy(case.module)  # a step changes BatchNorm's statistics

    def passes() -> None:
        with torch.no_grad():
            model(rows)

    def trains() -> None:
        logits = model.train()(rows)
        loss = functional.cross_entropy(
            logits, torch.zeros(len(rows), dtype=torch.long).to(rows.device)
        )
        parameters = [p for p in model.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        speeds = [torch.zeros_like(p) for p in parameters]
        for p, g, v in zip(parameters, gradients, speeds, strict=True):
            if g is not None:
                v.add_(g)
                p.data.sub_(v, alpha=1e-3)

    values = {
        "inference_mb": peak_bytes(model, passes) / MB,
        "training_mb": peak_bytes(model, trains) / MB,
    }
    limits = {"inference_mb": gate.max_inference_mb, "training_mb": gate.max_training_mb}
    return _within(
        values, limits, f"(Batches of {gate.batch}.) Take smaller batches, or a smaller model."
    )


def peak_bytes(module: nn.Module, run: Callable[[], None]) -> int:
    """The most bytes of tensors alive at once while `run` runs, the module's own among them.

    On any device, and the same in every run; working space inside an operation is not seen.

    >>> layer = nn.Linear(100, 10, bias=False)                       # 4,000 bytes
    >>> def run():
    ...     with torch.no_grad():
    ...         layer(torch.zeros(5, 100))                           # 2,000 in, 200 out
    >>> peak_bytes(layer, run)
    6200
    """
    counter = _Alive()
    for tensor in (*module.parameters(), *module.buffers()):
        counter.see(tensor)
    with counter:
        run()
    return counter.forget()


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages of all tensors that operations put out, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self.alive: dict[int, weakref.finalize[..., Any]] = {}

    def see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.alive:
            return
        self.alive[key] = weakref.finalize(storage, self.gone, key, size)
        self.alive[key].atexit = False
        self.now += size
        self.most = max(self.most, self.now)

    def gone(self, key: int, size: int) -> None:
        self.alive.pop(key, None)
        self.now -= size

    def forget(self) -> int:
        for ending in self.alive.values():
            ending.detach()
        return self.most

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.see(leaf)
        return out


def latency(case: Case) -> Finding:
    """Check 13: median and 95th percentile of a pass in ms, of one case and of a batch."""
    gate, values, limits = case.gate, {}, {}
    for size in sorted({1, gate.batch}):
        rows = case.tensor(case.batch(size))
        taken = _times(case.module, rows, gate.latency_repeats)
        for name, level, limit in (
            ("median_ms", 50, gate.max_median_ms),
            ("p95_ms", 95, gate.max_p95_ms),
        ):
            values[f"{name} of {size}"] = float(np.percentile(taken, level))
            limits[f"{name} of {size}"] = limit
    return _within(values, limits, "Run it on a faster machine, or ask for a smaller model.")


def _times(module: nn.Module, rows: torch.Tensor, repeats: int) -> list[float]:
    """Milliseconds of each pass, after three that are not counted."""
    taken = []
    with torch.inference_mode():
        for _ in range(3 + repeats):
            started = time.perf_counter()
            module(rows)
            if rows.device.type == "cuda":
                torch.cuda.synchronize(rows.device)
            taken.append(1e3 * (time.perf_counter() - started))
    return taken[3:]
