"""A firm: private data, a backbone, its verbs. It answers what its terms allow, no more."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cached_property, lru_cache
from typing import final

import numpy as np

from parties import privacy
from parties.backbones import Backbone
from parties.backbones.canonical import Canonical
from parties.canonicalize.offered import align, put_behind
from parties.canonicalize.recipe import Canonicalization
from parties.datasets import Cases, Dataset, Examples
from parties.energy import Meter
from parties.energy.watts import Watts
from parties.exchange import (
    Actions,
    Advertised,
    Answer,
    Array,
    Asking,
    Deal,
    Declaration,
    Enrol,
    FedpactError,
    Keys,
    Measure,
    Offer,
    Play,
    Predictions,
    Query,
    Refusal,
    Request,
    ReuseReport,
    Reveal,
    Revealed,
    Scores,
    Serve,
    Served,
    Settle,
    Settled,
    Terms,
    Trained,
    Unmask,
    Weights,
)
from parties.masking.masker import Masker
from parties.memory import Memory
from parties.models import LEAST_IN_SUM, Model, Models, auc
from parties.reuse.adopt import Adopter
from parties.reuse.checked import Checker, problems_of
from parties.reuse.gate import Gate
from parties.reuse.judge import Judge
from parties.reuse.ledger import Ledger
from parties.training import Training, load_weights, random_seed, weights_of

SHAREABLE = ("models", "predictions")
BASELINE = "no_sharing"
ADOPTS = ("published", "canonical", "tuned", "best", "judge")
TELLS = ("clients", "sums")


@final
@dataclass(frozen=True)
class Firm:
    """One competing firm.

    Args:
        name: how the others know it.
        dataset: its private data.
        backbone: its choice of model.
        training: how it trains.
        shares: what it would ever let out ("models", "predictions"), whatever a contract says.
        adopts: "published": it uses the model that a contract publishes; "canonical": that model
            behind its canonicalizer; "tuned": that model, trained on; "best": the published one,
            the last aggregate or its own, whichever is best on examples it kept back; "judge": it
            decides by `reuse` to use the published one as it is, canonical or tuned, or to leave
            it.
        kept_back: share of its training examples that it keeps back to judge models by.
        contributes: false: a free rider, who trains on nothing for the others.
        energy: counts what its computing takes.
        reuse: how it judges an offered model; only where it adopts by "judge".
        canonicalizer: how it brings its images into a pose that a published model knows.
        gate: the checks that a published model must pass, in every round, before the firm trains on
            from it or uses it; None, or a gate without checks, lets everything in.
        tells: of what clients earned it, where it settles at home: "clients": each payoff; "sums":
            means and a variance only.
        secrets: where what hides something (a contract's noise, masks) comes from. "seeded":
            everyone can know it, so that a simulation can be repeated, and it protects nothing;
            "secret": from the operating system, as it must in a deployment.
    """

    name: str
    dataset: Dataset
    backbone: Backbone
    training: Training
    shares: tuple[str, ...] = SHAREABLE
    adopts: str = "published"
    kept_back: float = 0.0
    contributes: bool = True
    energy: Meter = field(default_factory=Watts)
    reuse: Judge | None = None
    gate: Gate | None = None
    canonicalizer: Canonicalization | None = None
    tells: str = "clients"
    secrets: str = privacy.SEEDED

    def __post_init__(self) -> None:
        self._check_judging()
        if self.secrets not in privacy.SECRETS:
            raise FedpactError(
                f"parties.{self.name}.secrets is {self.secrets!r}; legal are "
                f"{' and '.join(privacy.SECRETS)}. A firm with real data needs secret."
            )
        if not self.name or not str(self.name).replace("_", "").isalnum():
            raise FedpactError(
                f"firm.name is {self.name!r}; legal are letters, digits and '_' (it names files)."
            )
        if isinstance(self.shares, str):
            raise FedpactError(
                f"parties.{self.name}.shares is {self.shares!r}; write a list: [{self.shares}]."
            )
        object.__setattr__(self, "shares", tuple(self.shares))
        unknown = sorted(set(self.shares) - set(SHAREABLE))
        if unknown:
            raise FedpactError(
                f"parties.{self.name}.shares holds {unknown}; legal are {list(SHAREABLE)}, "
                "or [] for a firm that shares nothing."
            )

    def _check_judging(self) -> None:
        where = f"parties.{self.name}"
        if self.adopts not in ADOPTS:
            raise FedpactError(f"{where}.adopts is {self.adopts!r}; legal are {', '.join(ADOPTS)}.")
        if self.tells not in TELLS:
            raise FedpactError(f"{where}.tells is {self.tells!r}; legal are {', '.join(TELLS)}.")
        number = isinstance(self.kept_back, int | float) and not isinstance(self.kept_back, bool)
        if not number or not 0 <= self.kept_back <= 0.5:
            raise FedpactError(
                f"{where}.kept_back is {self.kept_back!r}; legal is a share from 0 to 0.5."
            )
        if self.adopts == "judge" and self.reuse is None:
            raise FedpactError(f"{where}.adopts is 'judge', and {where}.reuse is not set.")
        if self.adopts in ("best", "judge") and not self.kept_back:
            raise FedpactError(
                f"{where}.adopts is {self.adopts!r}, and it keeps back no examples to judge by. "
                f"Set {where}.kept_back=0.2."
            )
        if self.adopts == "canonical" and (self.canonicalizer is None or self.canonicalizer.idle):
            raise FedpactError(
                f"{where}.adopts is 'canonical', and {where}.canonicalizer has one pose; legal are "
                "two or more. Set canonicalizer=turns."
            )
        poses = self.canonicalizer
        tries = self.adopts in ("canonical", "judge") and poses is not None and not poses.idle
        if tries and poses is not None and not poses.shareable:
            raise FedpactError(
                f"{where}.canonicalizer scores by {type(poses.scorer).__name__}, which is not "
                "trained but shown its maker's upright images; an offered model comes without "
                "them. Use scorer=scalar."
            )
        if isinstance(self.backbone, Canonical) and (
            self.adopts not in ("published", "best") or (self.gate is not None and self.gate.checks)
        ):
            raise FedpactError(
                f"{where}.backbone is canonical: what is published is a scorer of poses, which is "
                "not judged as a classifier. Set adopts=published or best, and gate=off."
            )
        if self.training.stopping.needs_validation and not self.kept_back:
            raise FedpactError(
                f"parties.{self.name}.training.stopping is "
                f"{type(self.training.stopping).__name__}, which watches examples that are kept "
                f"back, and there are none. Set {where}.kept_back=0.1, or use stopping=gdei, "
                "relative_gain or none."
            )
        if not isinstance(self.contributes, bool):
            raise FedpactError(f"{where}.contributes is {self.contributes!r}; legal: true, false.")

    def answer(self, request: Request, memory: Memory) -> Answer:
        """Answer one request of the operator, or refuse it with the reason."""
        if isinstance(request, Enrol):
            return self._declare(request.seed)
        objection = self._objection(request, memory)
        if objection:
            return Refusal(objection)
        match request:
            case Offer():
                if request.model is not None and not self._passes(request.model, request, memory):
                    # Nothing of what the checks measured on the firm's own data.
                    return Refusal(f"the model does not pass the adoption gate of {self.name}")
                return self._train(request, memory)
            case Query():
                return self._predict(request, memory)
            case Play():
                return self._act(request, memory)
            case Serve():
                return self._serve(request, memory)
            case Measure():
                return self._measure(request, memory)
            case Reveal():
                return Revealed(*self.dataset.outcomes(request.seed, "validation"))
            case Settle():
                return self._settle(request, memory)
            case Keys():
                return self._advertise(request, memory)
            case Deal():
                return self._masker.deal(request, memory)
            case Unmask():
                return self._masker.unmask(request, memory)

    # --------------------------------------------------------------------- the firm's wall

    def _objection(self, request: Asking, memory: Memory) -> str:
        """Why the firm will not answer, or ""."""
        terms = request.terms
        for kind in SHAREABLE:
            if getattr(terms, kind) and kind not in self.shares:
                return f"{self.name} shares no {kind}, and {terms.contract} asks for them"
        accepted = memory.notes.setdefault(f"terms/{terms.contract}", _sealed(terms))
        if accepted != _sealed(terms):
            return f"the terms of {terms.contract} are not those that {self.name} accepted"
        told = request.part if isinstance(request, Query) else "validation"
        if told != "validation" and not terms.predictions:
            return f"{terms.contract} does not let predictions on {told} clients leave a firm"
        if terms.secure and isinstance(request, Keys | Deal | Offer | Unmask):
            objection = self._masker.objection(request, memory)
            if objection:
                return objection
        if isinstance(request, Play | Serve | Settle):
            objection = self._asked_otherwise(request, memory)
            if objection:
                return objection
        return privacy.unprotected(request, memory)

    def _asked_otherwise(self, request: Play | Serve | Settle, memory: Memory) -> str:
        """Why a question to act or to settle is not the one of this contract and seed, or "".

        Answers to many rules would tell every prediction, and to many bills every outcome.
        """
        place = f"{request.terms.contract}/{request.seed}"
        if isinstance(request, Play):
            kind, asked = "act", _digest(request.rule, request.belief, request.rival)
        elif isinstance(request, Serve):
            told = [request.others[name] for name in sorted(request.others)]
            model = {} if request.model is None else request.model.arrays
            kind, asked = "serve", _digest(*(model[name] for name in sorted(model)), *told)
        else:
            kind, asked = "settle", _digest(request.shares, request.worth, *request.scored.values())
            acted = memory.notes.get(f"acted/{place}", "")
            if acted != _digest(request.actions) and (acted or self.tells == "sums"):
                return f"{self.name} is to settle for other actions than its own"
            if len(np.unique(request.shares)) > 2:
                return f"{self.name} is to settle for shares that no market gives"
            if self.tells == "sums" and len(request.actions) < LEAST_IN_SUM:
                return f"a sum over {len(request.actions)} clients tells too much of each"
        if memory.notes.setdefault(f"{kind}/{place}", asked) != asked:
            return f"{self.name} was asked to {kind} under {request.terms.contract} otherwise"
        return ""

    @property
    def _masker(self) -> Masker:
        return Masker(self.name, self.secrets == privacy.SECRET)

    @cached_property
    def _models(self) -> Models:
        return Models(self.name, self.dataset, self.backbone, self.training, self.kept_back)

    # -------------------------------------------------------------------- the firm's verbs

    def _declare(self, seed: int) -> Declaration:
        split = self.dataset.split(seed)

        def size(part: Cases | Examples | None) -> int:
            return 0 if part is None else len(part.ids)

        module = self.backbone.build(split.training.features.shape[1], self.dataset.classes, 0)
        return Declaration(
            firm=self.name,
            examples=len(split.training.ids),
            validation=size(split.validation),
            contested=size(split.contested),
            held_out=size(split.held_out),
            tensors={k: tuple(v.shape) for k, v in module.state_dict().items()},
            parameters=tuple(k for k, _ in module.named_parameters()),
            contributes=self.contributes,
            common=size(split.common),
        )

    def _train(self, offer: Offer, memory: Memory) -> Trained:
        if offer.terms.models and not self.contributes:
            return Trained(0, ())
        meter = self.energy.start(self.training.torch_device)
        together = offer.terms.models and offer.epochs > 0
        training = self._models.parts(offer.seed)[0] if together else self._models.whole(offer.seed)
        examples = len(training.ids)
        if together:
            start = None if offer.model is None else dict(offer.model.arrays)
            arrays, losses = self._models.fit(
                offer.seed, offer.round, offer.epochs, start, offer.proximal
            )
        else:
            arrays, losses = self._models.own(offer.seed, memory)
        weights, masked = None, None
        if offer.terms.models:
            precision = (
                self._models.precision(arrays, training, offer.seed) if offer.precision else None
            )
            card = self._models.card(arrays, training, offer.seed) if offer.card else None
            arrays = self._blurred(arrays, offer, memory) if offer.terms.update_epsilon else arrays
            weights = Weights(arrays, examples, precision, card)
        if offer.terms.secure and weights is not None:
            masked = self._masker.mask(offer, memory, weights)
            weights = None
        spent = meter()
        amounts = (spent.cpu_seconds, spent.gpu_seconds, spent.joules, spent.kg_co2e)
        return Trained(examples, losses, weights, np.array(amounts), spent.known, masked)

    def _advertise(self, keys: Keys, memory: Memory) -> Advertised:
        examples = len(self._models.parts(keys.seed)[0].ids) if self.contributes else 0
        return self._masker.advertise(keys, memory, examples)

    def _blurred(self, arrays: dict[str, Array], offer: Offer, memory: Memory) -> dict[str, Array]:
        """The trained model as it may leave the firm, where the terms put noise on it."""
        features = self.dataset.split(offer.seed).training.features
        module = self._models.module(features, offer.seed)
        start = weights_of(module) if offer.model is None else offer.model.arrays
        terms = offer.terms
        amount = (terms.update_epsilon, terms.update_delta, terms.update_clip, terms.rounds)
        content = {f"start/{k}": v for k, v in start.items()}
        content |= {f"trained/{k}": v for k, v in arrays.items()}
        about = ("update", self.name, offer.seed, offer.round, *amount)
        draw = privacy.Draw(privacy.key_of(self.secrets, memory), about, content)
        parameters = [name for name, _ in module.named_parameters()]
        return privacy.blurred(arrays, start, parameters, terms, draw)

    def _told(self, signals: Array, k: int, request: Query | Play, memory: Memory) -> Array:
        """The signals (n,) that the others hear for true ones (n,), one of k each."""
        epsilon = request.terms.prediction_epsilon
        about = ("prediction", self.name, request.seed, k, epsilon)
        draw = privacy.Draw(privacy.key_of(self.secrets, memory), about, {"signals": signals})
        return privacy.respond(signals, k, epsilon, draw.uniform(len(signals)))

    def _predict(self, query: Query, memory: Memory) -> Predictions:
        split = self.dataset.split(query.seed)
        parts = {"validation": split.validation, "contested": split.contested}
        cases = parts.get(query.part, split.common)
        if cases is None:
            raise FedpactError(f"{self.name} has no {query.part} clients; use market=own_cases.")
        arrays, _ = self._models.own(query.seed, memory)
        opinions = self._models.opinion(arrays, cases.features, query.seed)
        epsilon = query.terms.prediction_epsilon
        if query.part == "validation" or not epsilon:
            return Predictions(cases.ids, opinions)
        if query.edges is None:
            k = opinions.shape[1]
            told = self._told(opinions.argmax(1), k, query, memory)
            return Predictions(cases.ids, privacy.told_as_opinions(told, k, epsilon))
        signals = np.digitize(opinions[:, 1], query.edges)
        told = self._told(signals, len(query.edges) + 1, query, memory)
        return Predictions(cases.ids, privacy.told_as_probabilities(told, query.edges))

    def _act(self, play: Play, memory: Memory) -> Actions:
        cases = self.dataset.split(play.seed).contested
        if cases is None:
            raise FedpactError(f"{self.name} contests no clients; use market=own_cases.")
        arrays, _ = self._models.own(play.seed, memory)
        own = Predictions(cases.ids, self._models.probabilities(arrays, cases.features, play.seed))
        if play.rival is not None and not np.array_equal(play.rival.ids, own.ids):
            raise FedpactError(f"{self.name} was sent predictions for other clients than its own.")
        rival = None if play.rival is None else play.rival.probs[:, 1]
        told = None
        if play.terms.prediction_epsilon:
            edges = play.rule.edges
            told = self._told(np.digitize(own.probs[:, 1], edges), len(edges) + 1, play, memory)
        actions = play.rule.act(own.probs[:, 1], rival, told)
        memory.notes[f"acted/{play.terms.contract}/{play.seed}"] = _digest(actions)
        return Actions(own.ids, actions)

    def _serve(self, serve: Serve, memory: Memory) -> Served:
        cases = self.dataset.split(serve.seed).common
        if cases is None:
            raise FedpactError(f"{self.name} has no clients in common; use market=own_cases.")
        opinions, passes = [], 0
        model = serve.model
        if model is not None and not self._passes(model, serve, memory):
            model = None
        if model is not None:
            opinions.append(self._models.opinion(dict(model.arrays), cases.features, serve.seed))
        if model is None or serve.terms.predictions:
            own, losses = self._models.own(serve.seed, memory)
            passes = len(self._models.whole(serve.seed).ids) * len(losses)
            opinions.append(self._models.opinion(own, cases.features, serve.seed))
        for name in sorted(serve.others):
            told = serve.others[name]
            if not np.array_equal(told.ids, cases.ids):
                raise FedpactError(f"{self.name} was sent predictions for other clients.")
            opinions.append(told.probs)
        classes = self.backbone.decide(self.training, cases.features, opinions)
        memory.notes[f"acted/{serve.terms.contract}/{serve.seed}"] = _digest(classes)
        return Served(cases.ids, classes, passes)

    def _settle(self, settle: Settle, memory: Memory) -> Settled:
        """What clients earned it; what they turned out to be stays here."""
        ids, classes = self.dataset.outcomes(settle.seed, settle.part)
        if len(classes) != len(settle.actions):
            raise FedpactError(
                f"{self.name} has {len(classes)} {settle.part} clients and was told of "
                f"{len(settle.actions)} actions."
            )
        earned = settle.earned(classes)
        key = f"earned/{settle.seed}"
        if settle.terms.contract == BASELINE:
            memory.models[key] = {"payoffs": earned}
        told = self.tells == "clients"
        if not told and key not in memory.models:
            raise FedpactError(
                f"{self.name} tells sums only, and has settled nothing under {BASELINE} yet to "
                f"compare with. Hold {BASELINE} first in every seed."
            )
        gain = earned - memory.models[key]["payoffs"] if key in memory.models else 0 * earned
        split = self.dataset.split(settle.seed)
        parts = (split.training, split.validation, split.contested, split.common)
        both = len(np.unique(classes)) == 2
        return Settled(
            cases=len(earned),
            population=sum(len(part.ids) for part in parts if part is not None),
            payoff=float(earned.mean()),
            gain=float(gain.mean()),
            variance=float(gain.var(ddof=1)) if len(gain) > 1 else 0.0,
            ids=ids if told else None,
            payoffs=earned if told else None,
            # Scores are the operator's: ranked as it likes, they would tell of chosen clients.
            scores={
                name: auc(classes, scores)
                for name, scores in settle.scored.items()
                if both and told
            },
        )

    def _measure(self, measure: Measure, memory: Memory) -> Scores:
        cases = self.dataset.split(measure.seed).held_out
        if cases is None:
            raise FedpactError(f"{self.name} has no held-out cases; use a market of clients.")
        if not measure.compare and measure.model is not None:
            return self._score(dict(measure.model.arrays), cases, measure)
        mine, losses = self._models.own(measure.seed, memory)
        passes = len(self._models.whole(measure.seed).ids) * len(losses)
        adopted, found, report = self._gated(measure, mine, memory)
        own = self._models.losses(mine, cases, measure.seed)
        scored = own if adopted == "own" else self._models.losses(found, cases, measure.seed)
        gain = own.per_case - scored.per_case
        return Scores(
            cases=len(cases.labels),
            log_loss=float(scored.per_case.mean()),
            own_log_loss=float(own.per_case.mean()),
            variance=float(gain.var(ddof=1)) if len(gain) > 1 else 0.0,
            accuracy=float(scored.right.mean()),
            auc=scored.auc,
            adopted=adopted,
            by_class=self._by_class(cases.labels, scored.right) if measure.by_class else None,
            report=report,
            own_passes=passes,
        )

    def _score(self, arrays: dict[str, Array], cases: Examples, measure: Measure) -> Scores:
        """The published model by itself."""
        scored = self._models.losses(arrays, cases, measure.seed)
        return Scores(
            cases=len(cases.labels),
            log_loss=float(scored.per_case.mean()),
            own_log_loss=None,
            variance=0.0,
            accuracy=float(scored.right.mean()),
            auc=scored.auc,
            adopted="published",
            by_class=self._by_class(cases.labels, scored.right) if measure.by_class else None,
        )

    def _gated(
        self, measure: Measure, own: dict[str, Array], memory: Memory
    ) -> tuple[str, Model, ReuseReport | None]:
        """The same as `_adopted` for a model that passes the firm's gate, else its own."""
        if not measure.adopt or measure.model is None or not self._guarded:
            return self._adopted(measure, own, memory)
        passes = self._passes(measure.model, measure, memory)
        problems = problems_of(self._ledger(measure, memory))
        if not passes:
            return "own", own, ReuseReport("scratch", refused=True, problems=problems)
        name, found, report = self._adopted(measure, own, memory)
        return name, found, replace(report or ReuseReport("as_is"), problems=problems)

    @property
    def _guarded(self) -> bool:
        return self.gate is not None and bool(self.gate.checks)

    def _passes(self, model: Weights, request: Offer | Serve | Measure, memory: Memory) -> bool:
        """Whether a published model passes the firm's gate; what objects is remembered."""
        if not self._guarded:
            return True
        assert self.gate is not None
        training, judging = self._models.parts(request.seed)
        checker = Checker(
            self.gate,
            self.backbone,
            lambda: self._models.module(training.features, request.seed),
            training,
            judging,
            self.dataset.classes,
            self.training.torch_device,
        )
        turn = request.round if isinstance(request, Offer) else request.terms.rounds
        passes, ledger = checker.check(model, request.terms, turn, self._ledger(request, memory))
        memory.notes[_ledger_key(request)] = ledger.to_json()
        return passes

    def _ledger(self, request: Offer | Serve | Measure, memory: Memory) -> Ledger:
        text = memory.notes.get(_ledger_key(request))
        return Ledger() if text is None else Ledger.from_json(text)

    def _adopted(
        self, measure: Measure, own: dict[str, Array], memory: Memory
    ) -> tuple[str, Model, ReuseReport | None]:
        """What the model is that the firm would use, and how it judged it, if it did.

        Its own model is the one that it would have without the others, trained on all examples.
        To compare, it trains another one without those that it keeps back.
        """
        offered = {
            name: dict(model.arrays)
            for name, model in (("published", measure.model), ("last", measure.last))
            if model is not None
        }
        if measure.model is None:
            return "own", own, None
        if not measure.adopt:
            return "published", offered["published"], None
        if self.adopts == "published":
            return "published", offered["published"], None
        fit, judging = self._models.parts(measure.seed)
        model, seed = measure.model, random_seed(measure.seed, self.name)
        if self.adopts in ("canonical", "tuned"):
            return self._made_of(offered["published"], fit, judging, measure.seed)
        assert judging is not None
        if self.adopts == "judge":
            assert self.reuse is not None
            adopter = Adopter(
                self.reuse,
                self.training,
                lambda: self._models.module(fit.features, measure.seed),
                fit,
                judging,
                seed,
                self.canonicalizer,
            )
            told = adopter.adopt(model)
            return told.name, own if told.module is None else told.module, told.report
        rival, epochs = self._models.own(measure.seed, memory, whole=False)
        losses = {
            name: float(self._models.losses(arrays, judging, measure.seed).per_case.mean())
            for name, arrays in {"own": rival, **offered}.items()
        }
        best = min(losses, key=lambda name: losses[name])  # of equal ones the first: its own
        # Whoever compares has trained the model to compare with, whichever it uses in the end.
        report = ReuseReport(
            "scratch" if best == "own" else "as_is", passes=len(epochs) * len(fit.ids)
        )
        return best, own if best == "own" else offered[best], report

    def _made_of(
        self, arrays: dict[str, Array], fit: Examples, back: Examples | None, seed: int
    ) -> tuple[str, Model, ReuseReport]:
        """The published model behind the firm's canonicalizer, or trained on; what that took."""
        module = load_weights(self._models.module(fit.features, seed), arrays)
        own = random_seed(seed, self.name, self.adopts)
        if self.adopts == "canonical":
            assert self.canonicalizer is not None
            recipe = self.canonicalizer
            aligned = align(recipe, module, fit.features, fit.labels)
            behind = put_behind(recipe, module, aligned, own)
            return "canonical", behind.module, ReuseReport("canonicalize", passes=behind.passes)
        kept = None if back is None else (back.features, back.labels)
        losses = self.training.fit(module, fit.features, fit.labels, own, validation=kept)
        return "tuned", module, ReuseReport("fine_tune", passes=len(losses) * len(fit.ids))

    def _by_class(self, labels: Array, right: Array) -> tuple[tuple[int, int], ...]:
        classes = range(self.dataset.classes)
        return tuple((int(np.sum(labels == c)), int(np.sum(right[labels == c]))) for c in classes)


def _ledger_key(request: Offer | Serve | Measure) -> str:
    return f"ledger/{request.terms.contract}/{request.seed}"


def _digest(*values: object) -> str:
    """Of arrays, and of values that hold some; whole numbers count as such, whatever their size."""
    told = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            same = value.astype(np.int64) if value.dtype.kind in "iu" else value
            told.update(f"{same.dtype}{same.shape}".encode() + same.tobytes())
        elif is_dataclass(value) and not isinstance(value, type):
            told.update(_digest(*(getattr(value, f.name) for f in fields(value))).encode())
        else:
            told.update(repr(value).encode())
    return told.hexdigest()


@lru_cache(maxsize=256)
def _sealed(terms: Terms) -> str:
    return json.dumps(asdict(terms), sort_keys=True)
