"""The canonicalizer of equiadapt, in an interpreter of its own that the benchmark asks.

`make bench-peers` makes that interpreter. Requests and replies are lines of JSON; tensors travel as
.npz files. Beside torch and equiadapt this module needs `parties.canonicalize` only.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from parties.canonicalize.scorers import network


@final
@dataclass(frozen=True)
class Answer:
    """What a canonicalizer made of n images.

    Args:
        scores: of every element, (n, order); element: the best one, (n,).
        images: canonical, (n, c, s, s).
    """

    scores: Tensor
    element: Tensor
    images: Tensor

    def write(self, path: Path) -> None:
        np.savez(path, **{name: value.numpy() for name, value in vars(self).items()})

    @classmethod
    def read(cls, path: Path) -> Answer:
        with np.load(path) as found:
            return cls(**{name: torch.from_numpy(found[name]) for name in found})


def cpu_seconds(run: Callable[[], Any], calls: int) -> float:
    """CPU seconds of this process for one call, of so many in a row."""
    started = time.process_time()
    for _ in range(calls):
        run()
    return (time.process_time() - started) / calls


@cache
def _load() -> tuple[Any, Any]:
    """equiadapt's module of finite groups, and what must be kept for it to work."""
    kept, ops = None, import_module("torch").ops
    vision = find_spec("torchvision")
    try:
        if vision and vision.origin:
            ops.load_library(Path(vision.origin).parent / "_C.so")
    except OSError:
        # A torchvision built for CUDA cannot load its operators into torch for CPUs, and then fails
        # to import because these two are not there. Nothing here calls them.
        kept = import_module("torch.library").Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            kept.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return import_module("equiadapt.images.canonicalization.discrete_group"), kept


@final
class Equiadapt:
    """equiadapt's optimised canonicalizer with a network and images out of a file.

    Its steps that change scores are left out (cropping and resizing before the network), and so is
    its artifact term, which it would compute at inference too.

    Args:
        path: .npz of `images`, `reference` and the tensors of the network, as `network.NAME`.
        turns: n of C_n.
        widths: of the network (`parties.canonicalize.scorers.network`).
    """

    def __init__(self, path: Path, turns: int, widths: tuple[int, ...]) -> None:
        with np.load(path) as found:
            tensors = {name: torch.from_numpy(found[name]) for name in found}
        self.images, reference, self._turns = tensors["images"], tensors["reference"], turns
        channels, side, size = *self.images.shape[1:3], reference.shape[1]
        scorer = network(channels, side, widths, size)
        start = "network."
        scorer.load_state_dict(
            {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
        )
        scorer.out_vector_size = size  # type: ignore[assignment]
        settings = import_module("omegaconf").OmegaConf.create(
            {
                "beta": 1.0,
                "input_crop_ratio": 1.0,
                "resize_shape": side,
                "group_type": "rotation",
                "num_rotations": turns,
                "artifact_err_wt": 0,
                "learn_ref_vec": False,
            }
        )
        made = _load()[0].OptimizedGroupEquivariantImageCanonicalization
        self._canonicalizer = made(scorer, settings, (channels, side, side)).eval()
        self._canonicalizer.reference_vector.data.copy_(reference)

    def run(self) -> Tensor:
        """The canonical images."""
        found: Tensor = self._canonicalizer(self.images)
        return found

    def answer(self) -> Answer:
        """Its element k turns by 360 k / n degrees anticlockwise, like that of `Group`."""
        images = self.run()
        told = self._canonicalizer.canonicalization_info_dict
        element = (told["group_element"]["rotation"] * self._turns / 360).round().long()
        return Answer(told["group_activations"], element, images)


def main() -> None:
    """Answer each line until there are no more: a case's answers, or its CPU seconds.

    A request is {"path", "turns", "widths", "calls"}. With no calls the answers are written beside
    the case, as .answer.npz.
    """
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no reply
    torch.set_num_threads(1)
    held: dict[str, Equiadapt] = {}
    with torch.inference_mode():
        for line in sys.stdin:
            asked = json.loads(line)
            path = Path(asked["path"])
            if asked["path"] not in held:
                held[asked["path"]] = Equiadapt(path, asked["turns"], tuple(asked["widths"]))
            case = held[asked["path"]]
            if asked["calls"]:
                reply = {"cpu_s": cpu_seconds(case.run, asked["calls"])}
            else:
                case.answer().write(path.with_suffix(".answer.npz"))
                reply = {}
            print(json.dumps(reply), file=out, flush=True)


if __name__ == "__main__":
    main()
