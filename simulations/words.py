"""What people type: short names for keys, and lists for a sweep."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

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
    if key == "seeds" and "," in value and value[0] not in "[{(":
        return f"study.seeds=[{value}]"
    if key == "contract":
        if value == "all":
            return ""  # all that a study of this kind can hold is the default
        named = [f"[no_sharing,{name}]" for name in value.split(",")]
        return f"study.contracts={','.join(named)}"
    return f"{SHORT.get(key, key)}={value}"


def _values(word: str) -> list[str] | None:
    """The values of a list behind -m, as they are written; None for a single value."""
    key = word.split("=")[0]
    if key.startswith("hydra") or "=" not in word:
        return None
    override: Override = OverridesParser.create().parse_override(word)
    if not override.is_sweep_override():
        return None
    return [str(value) for value in override.sweep_string_iterator()]
