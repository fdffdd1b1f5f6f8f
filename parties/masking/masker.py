"""A firm's side of secure aggregation: it masks its model, and helps to undo the masks of a sum."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final
from zlib import crc32

import numpy as np

from parties.exchange import (
    Advertised,
    Array,
    Deal,
    Dealt,
    FedpactError,
    Keys,
    Masked,
    Masking,
    Offer,
    Shares,
    Unmask,
    Weights,
)
from parties.exchange.masks import KEY, SHARE, threshold
from parties.masking import shamir
from parties.masking.keys import (
    agreed,
    derived,
    opened,
    pair_mask,
    public,
    round_of,
    seal,
    sum_of,
)
from parties.masking.words import stream, to_words
from parties.memory import Memory

Step = Keys | Deal | Offer | Unmask
Later = Deal | Offer | Unmask
MOST_KEPT = 3  # secrets of which a session knows what it did with them


@final
@dataclass(frozen=True)
class Masker:
    """What one firm does in the four steps of a masked round (`parties.masking`).

    A message may come twice, or late. So keys that were asked for again are the same ones until
    shares of their secrets are dealt. Then others are drawn, for the round may be held again, and
    of one secret no two sets of firms may get shares; the old ones stay for a while, and a step is
    done with those whose public keys it names.

    Args:
        firm: its name.
        private: its secrets are drawn by the operating system, anew each time that a round is held;
            else they follow from seed, round and name, so that a simulation can be repeated. Only
            the former hides anything.
    """

    firm: str
    private: bool

    def objection(self, step: Step, memory: Memory) -> str:
        """Why the firm will not do this step, or ""."""
        if isinstance(step, Keys):
            return ""
        keys, drawn = _keys_of(step), self._drawn(step, memory)
        if not drawn:
            return f"{self.firm} drew no secrets for round {step.round}"
        kept = self._about(step, drawn)
        if kept is None:
            return f"the keys that came back to {self.firm} are not its own"
        if len({key.tobytes() for pair in keys.values() for key in pair}) < 2 * len(keys):
            return "two firms have the same key"
        if kept.keys not in ("", _digest(keys)):
            return "the firms of a round changed after shares were dealt to them"
        if isinstance(step, Deal):
            return ""
        if self.private and not kept.keys:
            return f"{self.firm} has dealt no shares to the firms of round {step.round}"
        return self._about_masks(step, _masking(step), kept, memory)

    def _about_masks(
        self, step: Offer | Unmask, masking: Masking, kept: _Kept, memory: Memory
    ) -> str:
        dealers, needed = {*masking.sealed, self.firm}, threshold(len(masking.keys))
        if self.firm in masking.sealed:
            return f"{self.firm} was sent shares that it would have dealt itself"
        if len(dealers) < needed:
            return f"{len(dealers)} firms dealt shares, and {needed} could undo the masks"
        if kept.masking not in ("", _seal(masking)):
            return "what is to be masked with changed within a round"
        if isinstance(step, Offer):
            return ""
        if self.private and not kept.masking:
            return f"{self.firm} masked nothing in round {step.round}"
        masked = set(step.masked)
        if not masked <= dealers or self.firm not in masked:
            return "the firms whose models came are not those that were to mask them"
        if len(masked) < needed:
            return f"{len(masked)} models are fewer than the {needed} that a sum must hide"
        # Sums with and without a firm tell its model: a model of this one is in one sum only.
        told, said = _told(step, memory), _digest(sorted(masked))
        if any(told.get(key, said) != said for key in _sums(step, kept)):
            return f"{self.firm} has helped to the sum of other firms with the same model"
        return ""

    # ------------------------------------------------------------------------------ the steps

    def advertise(self, step: Keys, memory: Memory, examples: int) -> Advertised:
        undealt = (kept for kept in self._drawn(step, memory) if not kept.keys)
        kept = next(undealt, None) or _Kept(step.round, os.urandom(KEY).hex())
        kept.put(step, memory)
        return Advertised(examples, self._keys(kept))

    def deal(self, step: Deal, memory: Memory) -> Dealt:
        kept = self._kept(step, memory)
        replace(kept, keys=_digest(step.keys)).put(step, memory)
        shares = self._shares(kept, step.keys)
        own = kept.derived("sealing")
        return Dealt(
            {
                name: _array(
                    seal(self._between(own, self.firm, name, step.keys, step), shares[name])
                )
                for name in sorted(step.keys)
                if name != self.firm
            }
        )

    def mask(self, step: Offer, memory: Memory, weights: Weights) -> Masked:
        masking, kept = _masking(step), self._kept(step, memory)
        if weights.examples > masking.total:
            raise FedpactError(f"{self.firm} has more examples than all firms together.")
        model = _digest(weights.arrays)
        if kept.model not in ("", model):
            raise FedpactError(
                f"{self.firm} has another model in round {step.round} than the one that it masked; "
                "two under the same masks would tell how they differ. Hold the round again."
            )
        words = to_words(weights.arrays, weights.examples / masking.total)
        words += stream(kept.derived("self"), len(words))
        own = kept.derived("masking")
        where = sum_of(round_of(step), masking.total, {*masking.sealed, self.firm})
        for name in sorted(masking.sealed):
            words += pair_mask(own, self.firm, name, masking.keys[name], where, len(words))
        dealt, noted = _digest(masking.keys), _seal(masking)
        replace(kept, keys=dealt, masking=noted, model=model).put(step, memory)
        return Masked(
            words,
            {name: tuple(array.shape) for name, array in weights.arrays.items()},
            {name: str(array.dtype) for name, array in weights.arrays.items()},
        )

    def unmask(self, step: Unmask, memory: Memory) -> Shares:
        """Shares of those that it could open; a firm that sealed something else did it harm."""
        kept = self._kept(step, memory)
        said = dict.fromkeys(_sums(step, kept), _digest(sorted(step.masked)))
        memory.notes[_sums_note(step)] = json.dumps({**_told(step, memory), **said})
        selves, pairs = dict[str, Array](), dict[str, Array]()
        for name, both in self._held(step, kept):
            of_self, of_pair = both[:SHARE], both[SHARE:]
            if name in step.masked:
                selves[name] = _array(of_self)
            else:
                pairs[name] = _array(of_pair)
        return Shares(selves, pairs)

    # ------------------------------------------------------------------------------ secrets

    def _drawn(self, step: Step, memory: Memory) -> list[_Kept]:
        """The secrets that the firm has for a round, and what it did with each."""
        drawn = [kept for kept in _noted(step, memory) if kept.round == step.round]
        if self.private:
            return drawn
        names = (crc32(word.encode()) for word in (self.firm, step.terms.contract, "masks"))
        secret = np.random.default_rng([step.seed, step.round, *names]).bytes(KEY)
        fresh = _Kept(step.round, secret.hex())  # a round held again begins as if it were new
        return [fresh] if isinstance(step, Keys) else drawn or [fresh]

    def _about(self, step: Later, drawn: Sequence[_Kept]) -> _Kept | None:
        """Those of the secrets whose public keys a step names, if any are."""
        named = _keys_of(step).get(self.firm)
        if named is None:
            return None
        return next((kept for kept in drawn if np.array_equal(self._keys(kept), named)), None)

    def _kept(self, step: Later, memory: Memory) -> _Kept:
        found = self._about(step, self._drawn(step, memory))
        assert found is not None  # else there was an objection
        return found

    def _keys(self, kept: _Kept) -> Array:
        both = (public(kept.derived(purpose)) for purpose in ("sealing", "masking"))
        return np.stack([_array(key) for key in both])

    def _shares(self, kept: _Kept, keys: Mapping[str, Array]) -> dict[str, bytes]:
        """Each firm's two shares of this firm's secrets, by name."""
        needed, names = threshold(len(keys)), sorted(keys)
        of_self, of_pair = (
            shamir.split(kept.derived(kind), len(names), needed, kept.derived(f"deal {kind}"))
            for kind in ("self", "masking")
        )
        return {n: a + b for n, a, b in zip(names, of_self, of_pair, strict=True)}

    def _held(self, step: Unmask, kept: _Kept) -> Iterator[tuple[str, bytes]]:
        """The two shares that each firm dealt to this one, its own among them."""
        keys, own = step.masking.keys, kept.derived("sealing")
        yield self.firm, self._shares(kept, keys)[self.firm]
        for name, box in sorted(step.masking.sealed.items()):
            both = opened(self._between(own, name, self.firm, keys, step), box.tobytes())
            if both is not None:
                yield name, both

    def _between(
        self, own: bytes, dealer: str, receiver: str, keys: Mapping[str, Array], step: Step
    ) -> bytes:
        """The key of what one firm seals for another, for either of the two."""
        other = keys[receiver if dealer == self.firm else dealer][0].tobytes()
        return agreed(own, other, f"seal {round_of(step)} {dealer} {receiver}")


@final
@dataclass(frozen=True)
class _Kept:
    """The secrets that a firm drew for a round, and what it did with them.

    Args:
        round: which; secret: 32 bytes in hex, from which all of them follow.
        keys, masking, model: hashes of what it dealt to, masked with, and masked.
    """

    round: int
    secret: str
    keys: str = ""
    masking: str = ""
    model: str = ""

    def derived(self, purpose: str) -> bytes:
        return derived(bytes.fromhex(self.secret), purpose)

    def put(self, step: Step, memory: Memory) -> None:
        """Note it as the last that was used."""
        this = (self.round, self.secret)
        others = [kept for kept in _noted(step, memory) if (kept.round, kept.secret) != this]
        noted = [*others, self][-MOST_KEPT:]
        memory.notes[_note(step)] = json.dumps([vars(kept) for kept in noted], sort_keys=True)


def _noted(step: Step, memory: Memory) -> list[_Kept]:
    """What a session has noted, the last used last."""
    return [_Kept(**kept) for kept in json.loads(memory.notes.get(_note(step), "[]"))]


def _note(step: Step) -> str:
    return f"masks/{step.terms.contract}/{step.seed}"


def _sums_note(step: Step) -> str:
    return f"masks/{step.seed}"  # of all contracts: under two of them a firm may train the same


def _told(step: Step, memory: Memory) -> dict[str, str]:
    """Rounds and models -> hash of the firms to whose sum the firm helped with them."""
    told: dict[str, str] = json.loads(memory.notes.get(_sums_note(step), "{}"))
    return told


def _sums(step: Step, kept: _Kept) -> list[str]:
    """What a sum is known by: its round, and the firm's model where it is noted."""
    return [f"{step.terms.contract}/{step.round}", *([kept.model] if kept.model else [])]


def _keys_of(step: Later) -> Mapping[str, Array]:
    return step.keys if isinstance(step, Deal) else _masking(step).keys


def _masking(step: Offer | Unmask) -> Masking:
    assert step.masking is not None  # the wall lets no secure offer pass without
    return step.masking


def _array(content: bytes) -> Array:
    return np.frombuffer(content, np.uint8)


def _seal(masking: Masking) -> str:
    return _digest([masking.total, _plain(masking.keys), _plain(masking.sealed)])


def _digest(value: Any) -> str:
    text = json.dumps(_plain(value) if isinstance(value, Mapping) else value)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(arrays: Mapping[str, Array]) -> list[tuple[str, str]]:
    return [(n, hashlib.sha256(arrays[n].tobytes()).hexdigest()) for n in sorted(arrays)]
