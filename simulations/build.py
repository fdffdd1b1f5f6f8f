"""From configuration to objects: the only caller of Hydra's `instantiate`."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from parties.exchange import FedpactError

PACKAGES = ("parties.", "server.", "simulations.")


def build(config: Mapping[str, Any]) -> Any:
    """The object a configuration describes with `_target_`.

    Raises:
        FedpactError: the target is not one of Fedpact's own names, or a field is missing, unknown
            or out of its range.
    """
    for target in _targets(config):
        if not _own_class(target):
            raise FedpactError(
                f"_target_ is {target!r}; legal are classes defined under {', '.join(PACKAGES)} "
                "A configuration may not run other code."
            )
    try:
        return hydra.utils.instantiate(OmegaConf.create(dict(config)), _convert_="object")
    except InstantiationException as fault:
        cause = fault.__cause__
        if isinstance(cause, FedpactError):
            raise cause from None
        raise FedpactError(_plain(config, cause or fault)) from fault


def _own_class(target: Any) -> bool:
    """Whether a name is that of a class, in the module of ours that defines it."""
    if not isinstance(target, str) or not target.startswith(PACKAGES):
        return False
    place, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(place), name, None)
    except ImportError:
        return False
    return isinstance(found, type) and found.__module__ == place


def _targets(config: Any) -> list[Any]:
    if isinstance(config, Mapping):
        found = [config["_target_"]] if "_target_" in config else []
        return found + [t for value in config.values() for t in _targets(value)]
    return [t for value in config for t in _targets(value)] if isinstance(config, list) else []


def _inner(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A configuration and all those in it, with the paths of their keys."""
    yield path, config
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _inner(value, f"{path}{key}.")


def _plain(config: Mapping[str, Any], cause: BaseException) -> str:
    odd = re.match(r"(\w+)\.__init__\(\) got an unexpected .*argument '(\w+)'", str(cause))
    for path, part in _inner(config) if odd else ():
        own = str(part.get("_target_", ""))
        if odd and own.endswith(f".{odd[1]}") and odd[2] in part:
            place, _, name = own.rpartition(".")
            legal = sorted(
                inspect.signature(getattr(importlib.import_module(place), name)).parameters
            )
            return (
                f"{path}{odd[2]} is no setting of {name}; legal are {', '.join(legal) or 'none'}. "
                "Leave it out"
                + (f"; where an experiment has set it, add ~{path}{odd[2]}." if path else ".")
            )
    target = config.get("_target_", "?")
    fields = ", ".join(sorted(k for k in config if not k.startswith("_")))
    return f"{target} cannot be built: {cause}. Its configuration has the fields: {fields}."


def as_text(config: DictConfig) -> str:
    """The resolved configuration as one line of JSON: how it travels to every process."""
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return json.dumps(plain, sort_keys=True)


def sha256(text: str) -> str:
    """Hex digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
