"""What is asked on the command line: words of the judge's own, and changes of the configuration."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from parties.exchange import FedpactError
from simulations.mistakes import did_you_mean

OWN = (
    *("model", "features", "classes", "data", "label", "card", "source", "history", "outcome"),
    *("case", "kind", "own", "out", "format", "calibrate", "seed", "ledger"),
)
INPUTS = ("low", "high", "channels", "mean", "std", "group")
NUMBERS = ("features", "seed")
WORDS = {"format": ("text", "json"), "outcome": ("measure",)}
OTHER = "other"  # classes=other: the data's classes are not the model's


@final
@dataclass(frozen=True)
class Asked:
    """A command line.

    Args:
        own: words of the judge's own.
        keys: firm -> file of its public key; inputs: what the firm states of its own inputs.
        overrides: changes of the configuration.
    """

    own: Mapping[str, str]
    keys: Mapping[str, str]
    inputs: Mapping[str, Any]
    overrides: tuple[str, ...]

    @property
    def other(self) -> bool:
        """Whether the data's classes are not the model's."""
        return self.own.get("classes") == OTHER

    @property
    def names(self) -> tuple[str, ...]:
        """The firm's names of the classes, in order; () where it gives none."""
        if self.other or "classes" not in self.own:
            return ()
        names = [n.strip().strip("'\"") for n in self.own["classes"].strip("[] ").split(",")]
        if not all(names) or len(set(names)) < len(names) or len(names) < 2:
            raise FedpactError(
                f"classes is {self.own['classes']!r}; legal are two or more different names in the "
                "order of the model's outputs, or other. Write classes=[a,b,c]."
            )
        return tuple(names)


def parse(arguments: Sequence[str]) -> Asked:
    """Sort the words of a command line.

    Raises:
        FedpactError: a word is no key=value, one is missing, or has no legal value.
    """
    own, keys, inputs, overrides = dict[str, str](), dict[str, str](), dict[str, Any](), []
    for word in arguments:
        key, sign, value = word.partition("=")
        first, _, last = key.partition(".")
        if not sign:
            raise FedpactError(
                f"{word!r} is no key=value, and every word is one. See python -m simulations.judge "
                "--help."
            )
        if key in OWN:
            own[key] = value
        elif key.startswith("gate.keys."):  # a firm's name may hold what Hydra would not take
            keys[key.removeprefix("gate.keys.")] = value
        elif first == "inputs":
            if last not in INPUTS:
                raise FedpactError(f"There is no key {key!r}. {did_you_mean(last, list(INPUTS))}")
            inputs[last] = _literal(value)
        else:  # `++`: the configuration has no key yet, and Hydra would not add one
            overrides.append(f"++{word}" if key == "gate.keys" else word)
    _check(own, overrides)
    return Asked(own, keys, inputs, tuple(overrides))


def _check(own: Mapping[str, str], overrides: Sequence[str]) -> None:
    for key in ("model", "data"):
        if "calibrate" not in own and key not in own:
            close = difflib.get_close_matches(key, [w.split("=")[0] for w in overrides], 1)
            hint = f" (was it meant by {close[0]!r}?)" if close else ""
            raise FedpactError(f"{key}=... is missing{hint}. See --help.")
    for key in NUMBERS:
        value = own.get(key, "0")
        if not value.isdecimal() or int(value) >= 2**63:
            raise FedpactError(
                f"{key} is {value!r}; legal is a whole number >= 0 and below 2^63. Choose one."
            )
    for key, legal in WORDS.items():
        if own.get(key, legal[0]) not in legal:
            raise FedpactError(
                f"{key} is {own[key]!r}; legal: {', '.join(legal)}. Write {key}={legal[-1]}, or "
                "leave it out."
            )


def _literal(text: str) -> Any:
    """A number or a list of them, else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
