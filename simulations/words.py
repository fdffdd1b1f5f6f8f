"""What people type: short names for keys, and lists for a sweep."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from parties.exchange import FedpactError

SHORT = {"seeds": "study.seeds", "market.cost": "market.C1"}
MANY = ("-m", "--multirun")


def spelled_out(words: Sequence[str]) -> list[str]:
    """Words with short names in full, and `-m key=a,b` as a grid.

    >>> spelled_out(["seeds=5", "market.cost=2", "contract=full_sharing"])
    ['study.seeds=5', 'market.C1=2', 'study.contracts=[no_sharing,full_sharing]']
    >>> spelled_out(["-m", "play=myopic,equilibrium", "contract=all", "seeds=0,3"])
    ['study.seeds=[0,3]', 'sweep=grid', 'sweep.axes={play:[myopic,equilibrium]}']

    `seeds` and `contract=all` name what every study has, in sweeps too; to vary the number of seeds
    write study.seeds=5,10.
    """
    many = any(word in MANY for word in words)
    kept, axes = [], list[str]()
    for word in (_long(word, many) for word in words if word not in MANY):
        if not word:
            continue
        values = _values(word) if many else None
        if values is None:
            kept.append(word)
        else:
            axes.append(f"{word.split('=')[0]}:[{','.join(values)}]")
    if not many or any(w.startswith(("hydra/launcher=", "hydra/sweeper=")) for w in kept):
        return list(words) if many else kept  # who names Hydra's own launcher gets it
    if not any(word.startswith("sweep=") for word in kept):
        kept.append("sweep=grid")
    if axes and any(word.startswith("sweep.axes=") for word in kept):
        raise FedpactError(
            "-m has lists and there is sweep.axes=... too; legal is one of them. Put all axes "
            "into sweep.axes, or all as lists behind -m."
        )
    return [*kept, f"sweep.axes={{{','.join(axes)}}}"] if axes else kept


def _long(word: str, many: bool) -> str:
    """A word with its key in full; nothing for one that says what is so anyway."""
    key, is_, value = word.partition("=")
    if not is_:
        return word
    if key == "seeds" and re.fullmatch(r"\d+(,\d+)+", value):
        return f"study.seeds=[{value}]"
    if key == "contract":
        if value == "all":
            return ""  # all that a study of this kind can hold is the default
        if value.startswith("["):
            return f"study.contracts=[no_sharing,{value.strip('[] ')}]"
        names = value.split(",")
        if "all" in names:
            raise FedpactError(
                f"contract is {value}; legal are all, one name, names behind -m (each with "
                "no_sharing a study of its own), or [names] for one study of several."
            )
        return f"study.contracts={','.join(f'[no_sharing,{name}]' for name in names)}"
    return f"{SHORT.get(key, key)}={value}"


def _values(word: str) -> list[str] | None:
    """The values of a list behind -m, as they are written; None for a single value."""
    key = word.split("=")[0]
    if key.startswith("hydra") or "=" not in word:
        return None
    try:
        override: Override = OverridesParser.create().parse_override(word)
        if not override.is_sweep_override():
            return None
        return [str(value) for value in override.sweep_string_iterator()]
    except (HydraException, ValueError) as fault:
        raise FedpactError(
            f"{word} is no list behind -m ({' '.join(str(fault).split())[:120]}). Legal are "
            "key=a,b,c and key=range(1,4), or ranges of a design: sweep=sobol "
            "'sweep.axes={market.C1:{low:1,high:5}}'."
        ) from fault
