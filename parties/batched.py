"""Many trainings as one: the models of all firms side by side, one product for all of them.

What a small model costs is the call of every operation, not its arithmetic; firms, seeds and points
of a sweep that share an architecture can share the calls. Each comes to the same bits whatever it
is batched with: what is batched, and how it is padded, is decided by a fit alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import final

import torch
from torch import nn

from parties.examples import Examples
from parties.exchange import Array, FedpactError
from parties.fitting import Fit, Fitted, fit_one
from parties.kinds import Designs, Kind, kind_of, layout_of
from parties.resident import forget_all
from parties.stacks import Dense, Mapped, Rates, Stack, padded

log = logging.getLogger("fedpact.firm")

WAYS = ("bmm", "vmap")
MOST_ROWS = 3.0  # of a batch, times those that its fits have


def fit_together(
    fits: Sequence[Fit], room_mb: float | None = None, way: str | None = None
) -> list[Fitted]:
    """Train all of them, those of a kind as one batch, the others one by one.

    A fit's outcome does not depend on the others, to the bit; it is that of `fit_one` to rounding.

    Args:
        room_mb: what a batch's models and the activations of a step may take; None: what a CPU
            caches, or a share of a GPU's memory. Where a GPU has less left, batches are halved, to
            the same results but for rounding (see `Kind.fixed`).
        way: "bmm" (linear layers and ReLU, written out), "vmap" (other layers too) or None: bmm
            where it can be, vmap on a GPU.

    Raises:
        FedpactError: there is no such way.
    """
    if way is not None and way not in WAYS:
        raise FedpactError(f"way is {way!r}; legal are {', '.join(WAYS)}, or None. Leave it out.")
    found: dict[int, Fitted] = {}
    kinds: dict[Kind, list[int]] = {}
    designs = Designs()
    for place, fit in enumerate(fits):
        kind = kind_of(fit, designs.of(fit), room_mb, way)
        if kind is None:
            found[place] = fit_one(fit)
        else:
            kinds.setdefault(kind, []).append(place)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more would divide sums by how many models there are
    try:
        for kind, places in kinds.items():
            places.sort(key=lambda place: _turn(fits[place]))
            # Without autograd's notes, but where it is what finds the gradients.
            with torch.inference_mode(kind.way == "bmm"), torch.no_grad():
                ended = _fit_in_turn(kind, [fits[place] for place in places], designs)
            found.update(zip(places, ended, strict=True))
    finally:
        torch.set_num_threads(threads)
    return [found[place] for place in range(len(fits))]


def _rates(fit: Fit) -> Rates:
    training = fit.training
    return Rates(
        training.learning_rate,
        training.momentum,
        training.weight_decay,
        float(fit.proximal),
        layout_of(fit).steps if training.schedule == "linear" else 0,
        fit.passes,
    )


def _turn(fit: Fit) -> tuple[int, int, Rates]:
    """Longer fits come first, so that those who have a step are neighbours; then see `Stack`."""
    layout = layout_of(fit)
    return -layout.steps, -layout.last, _rates(fit)


def _company(fits: Sequence[Fit]) -> Sequence[Fit]:
    """As many of them as one batch is good for, the first at least: all get the rows of the first,
    which has the most."""
    rows = [layout_of(fit).rows for fit in fits]
    for count, filled in enumerate(accumulate(rows), 1):
        if count * rows[0] > MOST_ROWS * filled:
            return fits[: count - 1]
    return fits


def _fit_in_turn(kind: Kind, fits: Sequence[Fit], designs: Designs) -> list[Fitted]:
    """Train fits of a kind, as many at a time as there is room for."""
    found, batch, module = list[Fitted](), None, designs.of(fits[0]).module
    while len(found) < len(fits):
        room = max(kind.room_for(layout_of(fits[len(found)])), 1)
        some = _company(fits[len(found) : len(found) + room])
        lanes = room if kind.fixed else len(some)
        try:
            if batch is None or batch.lanes != lanes:
                batch = None  # before another is made
                batch = _Batch(kind, module, lanes)
            found += batch.fit(some, [designs.start(fit) for fit in some])
            continue
        except torch.OutOfMemoryError:
            if lanes == 1:
                raise
        # Here and not above: the error holds on to all that the batch had taken.
        batch = None
        forget_all()
        kind = replace(kind, lanes=lanes // 2)
        log.warning(
            "%s has no room for %d models at a time: half of them are tried (with a lower room_mb "
            "they need not be)",
            kind.device,
            lanes,
        )
    return found


@final
class _Batch:
    """Room for so many fits of a kind, side by side. It is used again, since caches know it."""

    def __init__(self, kind: Kind, module: nn.Module, lanes: int) -> None:
        self._kind, self.lanes = kind, lanes
        self._stack: Stack
        if kind.way == "bmm":
            assert isinstance(module, nn.Sequential)
            self._stack = Dense(module, lanes, kind.pulled, kind.device, padded(kind.size))
        else:
            self._stack = Mapped(module, lanes, kind.pulled, kind.device)
        self._examples = Examples(kind, lanes)

    def fit(self, fits: Sequence[Fit], starts: Sequence[dict[str, Array]]) -> list[Fitted]:
        """Train them, from these weights; lanes that nobody needs do as the last one."""
        kind, stack, examples = self._kind, self._stack, self._examples
        asked, more = len(fits), self.lanes - len(fits)
        fits, starts = [*fits, *[fits[-1]] * more], [*starts, *[starts[-1]] * more]
        stack.begin(starts, list(map(_rates, fits)))
        examples.begin(fits)
        told = torch.zeros(kind.epochs, self.lanes, examples.rows, device=kind.device)
        for epoch in range(kind.epochs):
            for part, looked in examples.shuffled():
                found = stack.step(part.lanes, *looked, epoch, part.step)
                told[epoch, part.lanes, part.rows] = found.squeeze(2)
        losses = examples.losses(told.cpu().numpy())
        return list(zip(stack.ended(), losses, strict=True))[:asked]
