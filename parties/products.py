"""Products of large matrices, by a library that torch's own products do not call."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

LARGE = 2_000_000  # multiplications, from which on such a product is worth a call of its own
Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""x (n, m), w (o, m), b (o,) or None -> x @ w^T + b (n, o); the rows of x are one piece."""


@lru_cache(maxsize=1)
def one_dnn() -> Product | None:
    """oneDNN's product, where this processor does it faster than MKL's; else None.

    MKL uses of AMD's processors with AVX-512 the AVX2 half only: 117 GFlop/s where oneDNN does 257
    (1024 x 1024, one core of a fifth EPYC). No public function of torch has oneDNN's for float32;
    this is the one that its compiler puts in.
    """
    read: Callable[[], dict[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    processor = read()
    amd = str(processor.get("cpu_name", "")).startswith("AMD") and processor.get("avx512_f")
    there = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return _product if amd and there else None


def _product(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, w, b, "none", [], "")
    return found
