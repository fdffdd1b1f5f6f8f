"""Mistakes on the command line, explained: what was probably meant, and what is legal."""

from __future__ import annotations

import difflib
import re
import sys

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


def did_you_mean(word: str, legal: list[str]) -> str:
    """`Did you mean 'seeds'?`, or the legal names where none is close.

    >>> did_you_mean("sedes", ["seeds", "market"])
    "Did you mean 'seeds'?"
    """
    close = difflib.get_close_matches(word, legal, n=1, cutoff=0.5)
    return f"Did you mean '{close[0]}'?" if close else f"Legal are: {', '.join(sorted(legal))}."


def explain(fault: Exception) -> str:
    """Hydra's message, with "did you mean" for a mistyped key."""
    text = str(fault).strip()
    found = re.search(r"Key '([^']+)' is not in struct\s+full_key: (\S+)", text)
    if not found:
        found = re.search(r"Key '([^']+)' not in '[^']*'\s+full_key: (\S+)", text)
    if found:
        full = found[2]
        return _no_such_key(full)
    choice = re.search(r"In '[^']*': Could not find '([^'/]+)/([^']+)'", text) or re.search(
        r"Could not find '([^'/]+)/([^']+)'", text
    )
    if choice:
        group, name = choice.groups()
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        return f"{group} has no choice {name!r}. {did_you_mean(name, options)}"
    group = re.search(r"Could not override '([^']+)'", text)
    if group:
        return _no_such_key(group[1])
    return text


def _no_such_key(full: str) -> str:
    """Says which key next to it, or else anywhere, was probably meant."""
    *parents, last = full.split(".")
    keys = _all_keys(_chosen())
    above = ".".join(parents)
    if above in keys and not any(k.startswith(f"{above}.") for k in keys):
        return f"There is no key {full!r}: {above} has no settings with the present choices."
    beside = [k for k in keys if k.split(".")[:-1] == parents]
    if not difflib.get_close_matches(full, beside, cutoff=0.7):
        named = {k.split(".")[-1]: k for k in reversed(keys)}
        close = difflib.get_close_matches(last, list(named), n=1, cutoff=0.6)
        if close:
            return f"There is no key {full!r}. Did you mean {named[close[0]]!r}?"
    return f"There is no key {full!r}. {did_you_mean(full, beside or keys)}"


def _chosen() -> DictConfig:
    """The configuration with the choices made on the command line, as far as they are legal."""
    groups = [w for w in sys.argv[1:] if re.fullmatch(r"[a-z]+(@[\w.]+)?=\w+", w)]
    with hydra.initialize_config_module("conf", version_base="1.3"):
        for overrides in (groups, []):
            try:
                return hydra.compose("config", overrides)
            except (HydraException, OmegaConfBaseException):
                continue
    return OmegaConf.create()


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
