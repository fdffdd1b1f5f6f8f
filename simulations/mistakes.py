"""Mistakes on the command line, explained: what was probably meant, and what is legal."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

UNNAMED = ("hydra", "experiment")  # groups whose choices nobody is told to change


def did_you_mean(word: str, legal: list[str]) -> str:
    """`Did you mean 'seeds'?`, or the legal names where none is close.

    >>> did_you_mean("sedes", ["seeds", "market"])
    "Did you mean 'seeds'?"
    """
    close = difflib.get_close_matches(word, legal, n=1, cutoff=0.5)
    return f"Did you mean '{close[0]}'?" if close else f"Legal are: {', '.join(sorted(legal))}."


def explain(fault: Exception, words: Sequence[str] | None = None, more: Sequence[str] = ()) -> str:
    """Hydra's message, with "did you mean" for a mistyped key.

    Args:
        words: the command line; None: this process's.
        more: keys that are legal besides those of the configuration.
    """
    words = sys.argv[1:] if words is None else words
    text = str(fault).strip()
    found = re.search(r"Key '([^']+)' is not in struct\s+full_key: (\S+)", text)
    if not found:
        found = re.search(r"Key '([^']+)' not in '[^']*'\s+full_key: (\S+)", text)
    if found:
        return _no_such_key(found[2], words, more)
    choice = re.search(r"In '[^']*': Could not find '([^'/]+)/([^']+)'", text) or re.search(
        r"Could not find '([^'/]+)/([^']+)'", text
    )
    if choice:
        group, name = choice.groups()
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        return f"{group} has no choice {name!r}. {did_you_mean(name, options)}"
    group = re.search(r"Could not override '([^']+)'", text)
    if group:
        return _no_such_key(group[1], words, more)
    return text


def _no_such_key(full: str, words: Sequence[str], more: Sequence[str]) -> str:
    """Says which key next to it, or else anywhere, was probably meant."""
    *parents, last = full.split(".")
    chosen = _chosen(words)
    keys = list(dict.fromkeys([*more, *_all_keys(chosen)]))
    above = ".".join(parents)
    if len(parents) == 1 and above in keys and above not in UNNAMED:
        choice, others = _choices_with(above, last, words)
        if others:
            settings = " or ".join(f"{above}={other}" for other in others)
            typed = [word for word in words if word.startswith(f"{above}=")]
            place = f"in place of {typed[-1]}" if typed else "beside it"
            # With several choices at once it is not known which one has failed.
            present = "" if any("," in word for word in typed) else f" with {above}={choice}"
            return (
                f"There is no key {full!r}{present}: it is a setting of {settings}. Write "
                f"{above}={others[0]} {place}, or leave it out."
            )
    if parents and OmegaConf.select(chosen, above) == {}:  # open: a key of it is a name
        return f"There is no key {full!r} yet. {above} takes new ones: write +{full}=..."
    if above in keys and not any(k.startswith(f"{above}.") for k in keys):
        return f"There is no key {full!r}: {above} has no settings with the present choices."
    beside = [k for k in keys if k.split(".")[:-1] == parents]
    if not difflib.get_close_matches(full, beside, cutoff=0.7):
        named = {k.split(".")[-1]: k for k in reversed(keys)}
        close = difflib.get_close_matches(last, list(named), n=1, cutoff=0.6)
        if close:
            return f"There is no key {full!r}. Did you mean {named[close[0]]!r}?"
    return f"There is no key {full!r}. {did_you_mean(full, beside or keys)}"


def _choices_with(group: str, key: str, words: Sequence[str]) -> tuple[str, list[str]]:
    """What is chosen of a group of configurations, and the other choices, that have this key."""
    with _reading():
        others = []
        for option in GlobalHydra.instance().config_loader().get_group_options(group):
            with suppress(HydraException, OmegaConfBaseException):
                if key in hydra.compose(f"{group}/{option}").get(group, {}):
                    others.append(option)
    choices = _chosen(words, hydra_too=True).get("hydra", {}).get("runtime", {}).get("choices", {})
    return str(choices.get(group, "")), others


def _chosen(words: Sequence[str], hydra_too: bool = False) -> DictConfig:
    """The configuration with the choices made on the command line, as far as they are legal."""
    groups = [w for w in words if re.fullmatch(r"[a-z]+(@[\w.]+)?=\w+", w)]
    with _reading():
        for overrides in (groups, []):
            try:
                return hydra.compose("config", overrides, return_hydra_config=hydra_too)
            except (HydraException, OmegaConfBaseException):
                continue
    return OmegaConf.create()


def _reading() -> AbstractContextManager[object]:
    """Where configurations can be read."""
    known = GlobalHydra.instance().is_initialized()
    return nullcontext() if known else hydra.initialize_config_module("conf", version_base="1.3")


def _all_keys(node: DictConfig, path: str = "") -> list[str]:
    """Every key of a configuration as a dotted path, parents before their children."""
    found = []
    for key in map(str, node):
        full = f"{path}.{key}".lstrip(".")
        if not key.startswith("_"):
            found.append(full)
            value = node._get_node(key)
            if isinstance(value, DictConfig) and not value._is_none():
                found += _all_keys(value, full)
    return found
