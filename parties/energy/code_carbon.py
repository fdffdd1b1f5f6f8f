"""Energy by codecarbon, without a network, for this process only."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch

from parties.energy import ESTIMATED, JOULES_A_KWH, MEASURED, Meter, Spent, clock
from parties.exchange import FedpactError

COUNTERS = ("intel_rapl", "intel_power_gadget", "apple_powermetrics", "amd_rapl")


@final
@dataclass(frozen=True)
class CodeCarbon(Meter):
    """joules and kg CO2e as codecarbon counts them in process mode, memory included.

    Measured where it reads hardware counters of the processor, else estimated from the processor's
    load; its constant power of memory dominates small runs. It takes about a second to start, so
    it is for trainings of minutes. Emissions are of the country's electricity, by its own table.
    NVIDIA GPUs are counted where there are any.

    Args:
        country: ISO 3166 code of three letters, such as DEU.
    """

    country: str = "DEU"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (
            isinstance(self.country, str) and self.country.isalpha() and len(self.country) == 3
        ):
            raise FedpactError(
                f"energy.country is {self.country!r}; legal is a code of three letters. Write DEU "
                "for Germany, USA for the United States."
            )

    def start(self, device: torch.device) -> Callable[[], Spent]:
        try:
            from codecarbon import OfflineEmissionsTracker
        except ImportError as fault:
            raise FedpactError(
                "energy=codecarbon needs the package codecarbon, which is not installed. Install "
                'fedpact with its extra "energy", or use energy=watts.'
            ) from fault
        # Its own messages are about its files and its network, of which it gets neither.
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        tracker: Any = OfflineEmissionsTracker(
            country_iso_code=self.country.upper(),
            tracking_mode="process",
            output_methods=[],
            log_level="critical",
            allow_multiple_runs=True,
        )
        tracker.start()
        read = clock(device)

        def spent() -> Spent:
            cpu, gpu = read()
            kg = tracker.stop() or 0.0
            final = getattr(tracker, "final_emissions_data", None)
            if final is None:  # it swallows its own errors
                raise FedpactError(
                    "codecarbon could not count this training. Set energy.country to a country it "
                    "knows, or use energy=watts."
                )
            kwh = final.energy_consumed
            return Spent(cpu, gpu, JOULES_A_KWH * kwh, float(kg), _known(tracker))

        return spent


def _known(tracker: Any) -> str:
    """Measured only where every processor is read by counters."""
    modes = [getattr(part, "_mode", None) for part in getattr(tracker, "_hardware", ())]
    processors = [mode for mode in modes if mode is not None]
    counted = bool(processors) and all(mode in COUNTERS for mode in processors)
    return MEASURED if counted else ESTIMATED
