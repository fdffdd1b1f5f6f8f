"""The wall: every type that may leave a firm or reach one, and how it is packed.

What is not a type of this package cannot cross. The operator sends a *request*
(:class:`Enrol`, :class:`Offer`, :class:`Query`, :class:`Play`, :class:`Serve`, :class:`Measure`,
:class:`Reveal`, :class:`Settle`), a firm sends an *answer* (:class:`Declaration`,
:class:`Trained`, :class:`Predictions`, :class:`Actions`, :class:`Served`, :class:`Scores`,
:class:`Revealed`, :class:`Settled`, :class:`Refusal` or :class:`Fault`). Where models are added up
under masks (:mod:`parties.exchange.masks`) it also sends :class:`Keys`, :class:`Deal` and
:class:`Unmask`, and gets :class:`Advertised`, :class:`Dealt` and :class:`Shares`. There is
deliberately no type for features, nor for labels but those of validation clients, which a firm may
tell the operator. Of a firm's own held-out cases only means and a variance can be told, of its own
data a few measures (:class:`ReuseReport`) and, by a donor, sums and quantiles of what its model
makes of them (the profile card in :class:`Weights`).
"""

from __future__ import annotations

from parties.exchange.answers import (
    ADOPTABLE,
    DECISIONS,
    Actions,
    Declaration,
    Fault,
    Problem,
    Refusal,
    ReuseReport,
    Revealed,
    Scores,
    Served,
    Settled,
    Trained,
)
from parties.exchange.checks import (
    Array,
    ExchangeError,
    FedpactError,
)
from parties.exchange.masks import (
    Advertised,
    Deal,
    Dealt,
    Keys,
    Masked,
    Masking,
    Shares,
    Unmask,
)
from parties.exchange.packing import (
    TYPES,
    Answer,
    Asking,
    Facts,
    Message,
    Packed,
    Request,
    pack,
    unpack,
)
from parties.exchange.requests import (
    Enrol,
    Measure,
    Offer,
    Play,
    Query,
    Reveal,
    Serve,
    Settle,
)
from parties.exchange.response import truthful
from parties.exchange.values import (
    KNOWN_CONTRACTS,
    DecisionRule,
    Predictions,
    Seal,
    Terms,
    Weights,
)

__all__ = [
    "ADOPTABLE",
    "DECISIONS",
    "KNOWN_CONTRACTS",
    "TYPES",
    "Actions",
    "Advertised",
    "Answer",
    "Array",
    "Asking",
    "Deal",
    "Dealt",
    "DecisionRule",
    "Declaration",
    "Enrol",
    "ExchangeError",
    "Facts",
    "Fault",
    "FedpactError",
    "Keys",
    "Masked",
    "Masking",
    "Measure",
    "Message",
    "Offer",
    "Packed",
    "Play",
    "Predictions",
    "Problem",
    "Query",
    "Refusal",
    "Request",
    "ReuseReport",
    "Reveal",
    "Revealed",
    "Scores",
    "Seal",
    "Serve",
    "Served",
    "Settle",
    "Settled",
    "Shares",
    "Terms",
    "Trained",
    "Unmask",
    "Weights",
    "pack",
    "truthful",
    "unpack",
]
