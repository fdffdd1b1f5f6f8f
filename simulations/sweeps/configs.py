"""From a point of a sweep to the whole configuration of its study, thousands of them a second."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from parties.exchange import FedpactError
from simulations.build import sha256
from simulations.mistakes import explain
from simulations.sweeps import Point

# What does not change what comes of a study, or is not about one study.
APART = (
    *("campaign", "compare", "dry_run", "engine", "format", "launch"),
    *("progress", "resume", "run_dir", "sweep", "tracking"),
)


@final
@dataclass(frozen=True)
class Job:
    """One study of a sweep.

    Args:
        text: its resolved configuration as JSON, without what is not about the study.
        key: sha256 of it: equal studies have equal keys.
    """

    text: str
    key: str


@final
class Configs:
    """The configurations of a sweep's studies.

    Composing a configuration takes Hydra a tenth of a second. It is done once for each combination
    of *choices* (backbone, market, ...); plain values are put in their places afterwards.

    Args:
        words: the command line's overrides that all studies have in common.
        mark: told apart by it, equal studies that were held in another way have other keys.
        keys: the axes, with a "+" before those that the configuration lacks, as in an override.
    """

    def __init__(self, words: Sequence[str], keys: Sequence[str], mark: str = "") -> None:
        self._words, self._keys, self._mark = list(words), list(keys), mark
        for key in keys:
            if re.split(r"[.@/]", key.lstrip("+"))[0] in APART or key == "study.name":
                raise FedpactError(
                    f"sweep.axes has {key}, which is no part of a study: it would change nothing. "
                    "Legal are keys that `fedpact --cfg job` shows, but for study.name, "
                    f"{', '.join(APART)}."
                )
        groups = set(GlobalHydra.instance().config_loader().list_groups(""))
        self._choices = [k for k in keys if re.split(r"[@/]", k.lstrip("+"))[0] in groups]
        self._plain = [k for k in keys if k not in self._choices]
        self._templates: dict[str, _Template] = {}

    def job(self, point: Point) -> Job:
        """The study of a point.

        Raises:
            FedpactError: an axis is no key of the configuration, or no choice of it.
        """
        text = self._template(point).filled(point)
        return Job(text, sha256(text + self._mark))

    def check(self, points: Iterable[Point]) -> None:
        """Refuse points whose choices there are not, or which are about other firms than the first.

        Raises:
            FedpactError: there is such a point.
        """
        first: tuple[str, ...] | None = None
        for point in points:
            found = self._template(point).about
            first = first or found
            if found != first:
                raise FedpactError(
                    f"The studies of this sweep are about {', '.join(first)} and about "
                    f"{', '.join(found)}, whose gains cannot stand in one table. Hold a sweep for "
                    "each."
                )

    def _template(self, point: Point) -> _Template:
        chosen = [f"{key}={_as_word(point[key])}" for key in self._choices]
        name = " ".join(chosen)
        if name not in self._templates:
            first = [f"{key}={_as_word(point[key])}" for key in self._plain]
            # Composed with real values first: Hydra says best what is wrong with a key.
            overrides = [*self._words, *chosen, *first]
            try:
                whole = hydra.compose("config", overrides)
            except (HydraException, OmegaConfBaseException) as fault:
                raise FedpactError(explain(fault, overrides)) from fault
            self._templates[name] = _Template(whole, self._plain)
        return self._templates[name]

    def words(self, point: Point) -> list[str]:
        """The overrides that make this study by itself."""
        return [*self._words, *(f"{key}={_as_word(point[key])}" for key in self._keys)]


@final
class _Template:
    """A resolved configuration as text, with marks where the axes' values go."""

    def __init__(self, config: DictConfig, keys: Sequence[str]) -> None:
        self._config, self._keys = config, list(keys)
        marks = {key: f"@@axis {i}@@" for i, key in enumerate(keys)}
        marked = config.copy()
        for key, mark in marks.items():
            OmegaConf.update(marked, key.lstrip("+"), mark, merge=False)
        try:
            text = _text(marked)
        except OmegaConfBaseException:  # something reckons with the value: marks are no numbers
            text = ""
        self._places = {key: f'"{mark}"' for key, mark in marks.items()}
        whole = all(text.count(f'"{m}"') == text.count(m) >= 1 for m in marks.values())
        self._text = text if whole else None
        # Which contracts a study holds decides which of them are a part of it.
        self._varied = "study.contracts" in keys
        market = str(config["market"]["_target_"]).rpartition(".")[2]
        self.about = (f"market {market}", *sorted(map(str, config["parties"])))

    def filled(self, point: Point) -> str:
        """The configuration with the values of a point."""
        values = {key: point[key] for key in self._keys}
        plain = not any("${" in str(value) for value in values.values())
        if self._text is not None and plain:
            text = self._text
            for key, place in self._places.items():
                text = text.replace(place, json.dumps(values[key], sort_keys=True))
            return _as_text(json.loads(text)) if self._varied else text
        for key, value in values.items():
            OmegaConf.update(self._config, key.lstrip("+"), value, merge=False)
        return _text(self._config)


def _text(config: DictConfig) -> str:
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return _as_text({str(key): value for key, value in plain.items() if key not in APART})


def _as_text(config: dict[str, Any]) -> str:
    """A configuration as one line, without contracts that the study does not hold."""
    held, known = config["study"]["contracts"], config["contract"]
    if isinstance(held, list) and all(name in known for name in held):
        config["contract"] = {name: known[name] for name in held}
    return json.dumps(config, sort_keys=True)


def _as_word(value: Any) -> str:
    """A value as it is written in an override.

    >>> _as_word(2.5), _as_word(None), _as_word("it's"), _as_word(["a", 1])
    ('2.5', 'null', "'it\\\\'s'", '[a,1]')
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case Mapping():
            return "{" + ",".join(f"{k}:{_as_word(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(_as_word, value)) + "]"
    text = str(value)
    if text.replace("_", "").replace("/", "").isalnum() and not text.isdigit():
        lower = text.lower()
        if lower not in ("true", "false", "null", "nan", "inf") and not text[0].isdigit():
            return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
