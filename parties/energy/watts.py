"""Energy estimated from seconds: a CPU core and a GPU draw so many watts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch

from parties.energy import JOULES_A_KWH, Meter, Spent, clock


@final
@dataclass(frozen=True)
class Watts(Meter):
    """joules = cpu_watts * CPU seconds + gpu_watts * GPU seconds: always an estimate.

    Args:
        cpu_watts: of one busy core, its share of memory and cooling included.
        gpu_watts: of the firm's share of a GPU.
        kg_co2e_kwh: emissions of a kilowatt hour where the firm computes.
    """

    cpu_watts: float = 10.0
    gpu_watts: float = 300.0
    kg_co2e_kwh: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cpu_watts", "gpu_watts", "kg_co2e_kwh"):
            self._amount(name)

    def start(self, device: torch.device) -> Callable[[], Spent]:
        read = clock(device)

        def spent() -> Spent:
            cpu, gpu = read()
            joules = self.cpu_watts * cpu + self.gpu_watts * gpu
            return Spent(cpu, gpu, joules, self.kg_co2e_kwh * joules / JOULES_A_KWH)

        return spent
