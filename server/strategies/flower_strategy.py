"""FlowerStrategy: any other aggregation rule of Flower, by its name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from server.strategies.flower import FlowerRule, made


@final
@dataclass(frozen=True)
class FlowerStrategy(FlowerRule):
    """Any other rule of `flwr.serverapp.strategy` that combines models, by its Flower name.

    Its limits on the number of firms are Flower's own; where Flower has none, none are checked.

    Args:
        strategy: for example FedYogi or FedAdagrad.
        options: its numbers; what is not listed has Flower's default.
    """

    rounds: int = 20
    local_epochs: int = 1
    strategy: str = "FedYogi"
    options: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        named = isinstance(self.options, Mapping) and all(
            isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
            for v in self.options.values()
        )
        self._legal("options", named, "a mapping: name -> finite number")
        made(*self.flower)

    @property
    def flower(self) -> tuple[str, Mapping[str, float]]:
        return self.strategy, self.options

    @property
    def proximal(self) -> float:
        return float(self.options.get("proximal_mu", 0.0))
