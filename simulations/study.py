"""A study: who competes, for what, under which contracts. Checked whole before the first epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from parties.backbones.canonical import Canonical, Frozen
from parties.datasets import Dataset
from parties.datasets.own import OwnData
from parties.exchange import Array, Declaration, Enrol, FedpactError
from parties.firm import Firm
from parties.memory import Memory
from parties.partitions.iid import Iid
from parties.privacy import noise_scale
from parties.reuse.features import look
from parties.shifts.none import NoShift
from server.contracts import Contract
from server.intake import Limits
from server.market import Market
from server.outcome import Case
from server.participation import Participation
from server.play import Play
from server.settling import AtHome, ByMarket, Settling
from server.strategies import Strategy
from server.verdict import BASELINE, CONFIDENCE
from simulations.build import build
from simulations.mistakes import did_you_mean

PARTS = ("market", "play", "strategy", "participation", "limits")
SETTLES = ("market", "firms")


@final
@dataclass(frozen=True)
class Study:
    """One study, ready to be held.

    Args:
        name: what it is called in reports.
        seeds: paired repetitions.
        firms: by name.
        contracts: by name, in the order they are held; no_sharing is among them.
        market, play, strategy, participation, limits: the operator's rules.
        watch: every firm scores the published model after each round.
        confidence: level of the verdict's intervals.
        settles: who knows what clients turned out to be: "market" (it is told to the operator),
            "firms" (each settles its own payoffs at home, and tells what it tells of them).
        away: the firms and their data are elsewhere: what can be known of them only there is not
            checked here, and only they can settle.
    """

    name: str
    seeds: tuple[int, ...]
    firms: Mapping[str, Firm]
    contracts: Mapping[str, Contract]
    market: Market
    play: Play
    strategy: Strategy
    participation: Participation
    limits: Limits
    watch: bool = False
    confidence: float = CONFIDENCE
    settles: str = "market"
    away: bool = False

    def __post_init__(self) -> None:
        _check_seeds(self.seeds)
        _check_confidence(self.confidence)
        plain = self.name.replace("_", "").replace("-", "")
        if not plain.isalnum() or not plain.isascii():
            raise FedpactError(
                f"study.name is {self.name!r}; legal are ASCII letters, digits, '_' and '-' "
                "(it names the run's folder)."
            )
        if BASELINE not in self.contracts:
            raise FedpactError(
                f"study.contracts is {list(self.contracts)}; {BASELINE} must be among them: every "
                f"verdict is a gain over it. Add it: study.contracts=[{BASELINE},...]"
            )
        for key, firm in self.firms.items():
            if key != firm.name:
                raise FedpactError(
                    f"parties.{key}.name is {firm.name!r}; a firm's name is its key. Write {key}."
                )
        count = len(self.firms)
        if count < self.limits.minimum_firms:
            raise FedpactError(
                f"limits.minimum_firms is {self.limits.minimum_firms}, but the study has {count} "
                f"firms ({', '.join(self.names)}). Lower it or add firms."
            )
        self.participation.check(self.names)
        self.strategy.check(self.participation.count(count))
        self.strategy.check_names(self.names)
        self._check_prices()
        self._check_settling()
        self._check_masks()
        self._check_noise()
        match self.market.clients:
            case "contested":
                self._check_contest(count)
            case "common":
                self._check_common()
            case _:
                self._check_own_cases()

    @property
    def names(self) -> tuple[str, ...]:
        """The firms, ordered by name."""
        return tuple(sorted(self.firms))

    def cases(self) -> Iterator[Case]:
        """Every session of the study, in the order in which they are held."""
        for seed in self.seeds:
            for contract in self.contracts.values():
                yield Case(
                    seed,
                    self.names,
                    self.market,
                    contract,
                    self.strategy,
                    self.play,
                    participation=self.participation,
                    watch=self.watch,
                    limits=self.limits,
                )

    @property
    def settling(self) -> Settling:
        """How it comes out what clients turned out to be."""
        at_home = self.away or self.settles == "firms"
        return AtHome() if at_home else ByMarket(self.nature)

    @property
    def tells(self) -> str:
        """What firms that settle at home tell of it; "" where the market settles."""
        if not isinstance(self.settling, AtHome):
            return ""
        kinds = {firm.tells for firm in self.firms.values()}
        return kinds.pop() if len(kinds) == 1 else "either"

    @property
    def at_hand(self) -> bool:
        """Whether this machine has all data that the firms read; some may be at the firms only."""
        owned = [firm.dataset for firm in self.firms.values()]
        frozen = [frozen.dataset for frozen in self._frozen if frozen.weights is None]
        return all(dataset.at_hand for dataset in (*owned, *frozen))

    def nature(self, seed: int, part: str) -> tuple[Array, Array]:
        """What is true of the clients of a part; the firms contest the same ones."""
        return self._anyone.outcomes(seed, part)

    def declarations(self) -> dict[str, Declaration]:
        """What each firm would declare for the first seed (it reads the data, trains nothing)."""
        found = {}
        for name in self.names:
            answer = self.firms[name].answer(Enrol(self.seeds[0]), Memory())
            assert isinstance(answer, Declaration)
            found[name] = answer
        return found

    def hashes(self) -> dict[str, str]:
        """File -> sha256 of all data that the firms read (nothing, of firms elsewhere)."""
        if self.away:
            return {}
        found: dict[str, str] = {}
        for name in self.names:
            dataset = self.firms[name].dataset
            own = f"{name}/" if isinstance(dataset, OwnData) else ""  # each has its data.yaml
            found |= {f"{own}{file}": sha256 for file, sha256 in dataset.hashes().items()}
        for frozen in self._frozen:
            found |= frozen.hashes()
        return found

    @property
    def _frozen(self) -> list[Frozen]:
        """The models that firms reuse and nobody trains here."""
        backbones = [self.firms[name].backbone for name in self.names]
        return [b.frozen for b in backbones if isinstance(b, Canonical)]

    @property
    def _anyone(self) -> Dataset:
        return self.firms[self.names[0]].dataset

    def _check_prices(self) -> None:
        """A price is one of two firms that contest clients."""
        for name, contract in self.contracts.items():
            if contract.price and not self.market.contested:
                raise FedpactError(
                    f"contract.{name}.price is {contract.price}; where firms have their "
                    f"{self.market.clients} clients it is 0: among any number of firms it does "
                    f"not say who would pay whom. Set contract.{name}.price=0, or use market=loans."
                )

    def _check_settling(self) -> None:
        """Sums are told where firms settle at home, and compared with no sharing there."""
        if self.settles not in SETTLES:
            raise FedpactError(
                f"study.settles is {self.settles!r}; legal are {', '.join(SETTLES)}."
            )
        if self.settles == "firms" and self.market.clients == "own":
            raise FedpactError(
                "study.settles is firms; where each firm serves its own cases it always settles at "
                "home. Leave it at market."
            )
        sums = sorted(name for name, firm in self.firms.items() if firm.tells == "sums")
        if sums and not isinstance(self.settling, AtHome):
            raise FedpactError(
                f"parties.{sums[0]}.tells is sums, but the market settles. Use study.settles=firms."
            )
        if isinstance(self.settling, AtHome) and next(iter(self.contracts)) != BASELINE:
            raise FedpactError(
                f"study.contracts begins with {next(iter(self.contracts))}; where firms settle at "
                f"home each compares with what it earned under {BASELINE}, which is held first. "
                f"Write study.contracts=[{BASELINE},...]"
            )

    def _check_masks(self) -> None:
        """A sum of models hides each of them, and is all that the strategy needs."""
        givers = sum(firm.contributes for firm in self.firms.values())
        fewest = min(givers, self.participation.count(len(self.firms)))
        bare = [n for n, c in self.contracts.items() if c.models and not c.secure]
        for name, contract in self.contracts.items():
            if not contract.secure:
                continue
            if bare:
                raise FedpactError(
                    f"contract.{name}.secure is true and contract.{bare[0]}.secure is false: what "
                    "one hides, firms would send under the other as it is. Make both true, or "
                    "leave one out of study.contracts."
                )
            if fewest < contract.fewest:
                raise FedpactError(
                    f"contract.{name}.secure is true, and {fewest} firms train in a round; of a "
                    f"sum of two each knows the other's model, so that it takes {contract.fewest}. "
                    f"Add firms, raise participation.share, or set contract.{name}.secure=false."
                )
            if not self.strategy.linear:
                raise FedpactError(
                    f"contract.{name}.secure is true, and strategy {type(self.strategy).__name__} "
                    "needs the firms' models one by one; of a sum it would learn their mean only. "
                    "Use strategy=fedavg, fedprox, fedavgm, fedadam or fedref (with "
                    f"strategy.precision=scalar), or set contract.{name}.secure=false."
                )

    def _check_noise(self) -> None:
        """Noise on models covers all that leaves with them, and leaves models that are accepted."""
        extras = self.strategy.wants_card or self.strategy.wants_precision
        for name, contract in self.contracts.items():
            if not contract.update_epsilon:
                continue
            if extras:
                raise FedpactError(
                    f"contract.{name}.update_epsilon is {contract.update_epsilon}, and strategy "
                    f"{type(self.strategy).__name__} asks for more than weights, which no noise "
                    "covers. Use strategy=fedavg, or another without a donor or a precision."
                )
            scale, most = noise_scale(contract.terms(self.strategy.rounds)), self.limits.max_norm
            for firm, declared in self.declarations().items():
                numbers = sum(math.prod(declared.tensors[p]) for p in declared.parameters)
                if scale * math.sqrt(numbers) > most:
                    raise FedpactError(
                        f"contract.{name} puts noise of norm {scale * math.sqrt(numbers):.3g} on "
                        f"each model of {firm}; the operator accepts models of norm {most:g} at "
                        f"most. Raise contract.{name}.update_epsilon, lower its update_clip, or "
                        "raise limits.max_norm."
                    )

    def _check_contest(self, count: int) -> None:
        if count != 2:
            raise FedpactError(
                f"A market of contested clients is a game of two firms; the study has {count}: "
                f"{', '.join(self.names)}. Choose a cast of two (parties=lenders) or "
                "market=own_cases."
            )
        if self.strategy.combines:
            raise FedpactError(
                f"strategy is {type(self.strategy).__name__}, which averages models; firms that "
                "contest clients hold different columns. Use strategy=forward."
            )
        if self.participation != Participation():
            raise FedpactError(
                "participation is about rounds of a common model; firms that contest clients hand "
                "theirs over once. Leave it at share=1, or use market=own_cases."
            )
        for name, firm in self.firms.items():
            if firm.adopts != "published" or not firm.contributes:
                raise FedpactError(
                    f"parties.{name} has adopts={firm.adopts}, contributes={firm.contributes}; "
                    "where firms contest clients no common model is published. Leave them at "
                    "published and true, or use market=own_cases."
                )
        if self.away:
            return
        one, two = (self.firms[n].dataset.outcomes(self.seeds[0], "contested") for n in self.names)
        if not np.array_equal(one[0], two[0]):
            raise FedpactError(
                "The two firms contest different clients. Give both data sets the same clients: "
                f"parties.{self.names[0]}.dataset and parties.{self.names[1]}.dataset."
            )

    def _check_apart(self) -> None:
        """Firms that divide one pool must divide it in the same way."""
        if self.away:
            return
        pools: dict[str, dict[int, str]] = {}
        for name in self.names:
            firm = self.firms[name]
            if isinstance(firm.dataset, OwnData):
                continue  # firms of their own data number their clients as they like
            owners = pools.setdefault(type(firm.dataset).__name__, {})
            for i in firm.dataset.split(self.seeds[0]).training.ids.tolist():
                other = owners.setdefault(i, name)
                if other != name:
                    raise FedpactError(
                        f"{other} and {name} both train on example {i}. Firms of one pool must "
                        "agree on everything but `client`: set clients, partition and the like "
                        "for all of them."
                    )

    def _check_frozen(self) -> None:
        """A frozen model can be read, and has seen nobody whom firms are judged by."""
        for name in self.names:
            firm = self.firms[name]
            if not isinstance(firm.backbone, Canonical):
                continue
            frozen = firm.backbone.frozen
            if frozen.weights is not None:
                frozen.module()  # refuses a file of another model
                continue
            if type(frozen.dataset) is not type(firm.dataset):
                continue
            known = frozen.dataset.split(frozen.seed).training.ids
            for seed in self.seeds:
                split = firm.dataset.split(seed)
                judged = [part.ids for part in (split.common, split.held_out) if part is not None]
                if any(np.isin(ids, known).any() for ids in judged):
                    raise FedpactError(
                        f"The frozen model of {name} was trained on cases that judge it under seed "
                        f"{seed}. Give both the same test part, the same in every seed "
                        "(dataset.test_seed=0 with digits), or other data to freeze it on."
                    )

    def _check_poses(self) -> None:
        """A canonicalizer that a firm would try takes its images."""
        for name in self.names:
            firm = self.firms[name]
            poses = firm.canonicalizer
            if firm.adopts in ("canonical", "judge") and poses is not None and not poses.idle:
                poses.build(firm.dataset.split(self.seeds[0]).training.features.shape[1], 0)

    def _check_cards(self) -> None:
        """A donor gives its model, and the model has a layer to take a profile card of."""
        for name in self.strategy.trainers(self.names):
            firm = self.firms[name]
            if isinstance(firm.backbone, Canonical):
                raise FedpactError(
                    f"parties.{name}.backbone is canonical and the strategy sends profile cards, "
                    "which tell of classes; a scorer of poses is shared without. Use "
                    "strategy=fedavg."
                )
            if not firm.contributes:
                raise FedpactError(
                    f"parties.{name} is the donor and does not contribute. Let it, or name another "
                    "with strategy.donor=..."
                )
            some = firm.dataset.split(self.seeds[0]).training.features[:1]
            module = firm.backbone.build(some.shape[1], firm.dataset.classes, 0)
            try:
                look(module, some, np.random.default_rng(0))
            except FedpactError as fault:
                raise FedpactError(
                    f"parties.{name}'s model cannot be offered with a profile card: {fault} "
                    "Choose backbone=mlp or cnn."
                ) from fault

    def _check_own_cases(self) -> None:
        for contract in self.contracts.values():
            if contract.predictions:
                raise FedpactError(
                    f"study.contracts holds {contract.name}, which shares predictions for the "
                    "same client; under market=own_cases firms have no client in common. "
                    "Use study.contracts=[no_sharing,train_sharing]."
                )
        self._check_common_model()
        for name, firm in self.firms.items():
            if firm.adopts == "judge" and not self.strategy.wants_card:
                raise FedpactError(
                    f"parties.{name}.adopts is judge, which needs the profile card of an offered "
                    f"model; strategy {type(self.strategy).__name__} sends none. Use "
                    "strategy=donor, or adopts=best."
                )
            if not self.away and firm.dataset.split(self.seeds[0]).held_out is None:
                raise FedpactError(
                    f"parties.{name}.dataset has no held-out cases of its own. Use market=loans."
                )
        self._check_apart()

    def _check_common(self) -> None:
        """All firms serve the same clients, and nobody judges models."""
        self._check_common_model()
        for name, firm in self.firms.items():
            if firm.adopts != "published":
                raise FedpactError(
                    f"parties.{name}.adopts is {firm.adopts}; under market=common_clients a firm "
                    "serves with what the contract gives it. Leave it at published, or use "
                    "market=own_cases."
                )
        if self.watch:
            raise FedpactError(
                "study.watch is true; under market=common_clients no round's model is scored. Set "
                "study.watch=false, or use market=own_cases."
            )
        if self.away:
            return
        first = self.names[0]
        asked = self.firms[first].dataset.split(self.seeds[0]).common
        self._anyone.outcomes(self.seeds[0], "common")  # refuses data without common clients
        for name in self.names:
            theirs = self.firms[name].dataset.split(self.seeds[0]).common
            if asked is None or theirs is None or not np.array_equal(theirs.ids, asked.ids):
                raise FedpactError(
                    f"{first} and {name} serve different clients. Give all data sets the same "
                    "common clients: dataset.common and the test part."
                )
        self._check_apart()

    def _check_common_model(self) -> None:
        """Firms share one model, and can."""
        if not self.strategy.combines:
            raise FedpactError(
                f"strategy is {type(self.strategy).__name__}, which publishes no common model; "
                f"where firms have their {self.market.clients} clients a model is what they share. "
                "Use strategy=fedavg."
            )
        givers = sum(firm.contributes for firm in self.firms.values())
        least, asked = self.strategy.fewest, self.participation.count(len(self.firms))
        if min(givers, asked) < least:
            raise FedpactError(
                f"{asked} of {len(self.firms)} firms are asked in a round and {givers} contribute; "
                f"{type(self.strategy).__name__} needs {least}, so that every round would be void. "
                "Raise participation.share, or let more firms contribute."
            )
        last = self.strategy.rounds
        for name, rounds in self.participation.absent.items():
            late = [turn for turn in rounds if turn >= last]
            if late:
                raise FedpactError(
                    f"participation.absent.{name} has round {late[0]}; there are {last}, counted "
                    f"from 0. Legal are 0 to {last - 1}."
                )
        if self.away:
            return
        if self.strategy.wants_card:
            self._check_cards()
        self._check_poses()
        self._check_frozen()
        self._check_shapes(self.declarations())

    def check_declared(self, declared: Mapping[str, Declaration]) -> None:
        """What firms declare of data that nobody else sees fits the study.

        Raises:
            FedpactError: a firm has nothing to be judged by, or firms have not the same.
        """
        part = {"contested": "contested", "common": "common", "own": "held_out"}[
            self.market.clients
        ]
        sizes = {name: getattr(d, part) for name, d in sorted(declared.items())}
        first = next(iter(sizes), "")
        for name, size in sizes.items():
            if not size:
                raise FedpactError(
                    f"{name} declares no {part.replace('_', '-')} cases, and is judged by them. "
                    "Give its data set some, or use another market."
                )
            if part != "held_out" and size != sizes[first]:
                own = "" if self.at_hand else "`parts` of their data.yaml (check.sh), and "
                raise FedpactError(
                    f"{first} declares {sizes[first]} {part} clients and {name} {size}; they must "
                    f"be the same ones. Compare {own}the lists of ids."
                )
        if self.strategy.combines:
            self._check_shapes(declared)

    def _check_shapes(self, declared: Mapping[str, Declaration]) -> None:
        """Models that are averaged have the same tensors."""
        shapes = {name: dict(d.tensors) for name, d in declared.items()}
        first = next(iter(shapes), "")
        for name in shapes:
            if shapes[name] != shapes[first]:
                raise FedpactError(
                    f"{first} and {name} have models of different shapes ({shapes[first]} against "
                    f"{shapes[name]}), which cannot be averaged. Give them the same backbone and "
                    "columns."
                )


def study_of(
    config: Mapping[str, Any],
    make: Callable[[Mapping[str, Any]], Any] = build,
    away: bool = False,
) -> Study:
    """Build and check a whole study from a resolved configuration.

    Args:
        away: the firms and their data are elsewhere (`Study.away`).
        make: builds a part; a sweep's remembers those that its studies have in common.
    """
    parts = {name: make(config[name]) for name in PARTS}
    _check_pool(config)
    known, wanted = config["contract"], config["study"]["contracts"]
    if not isinstance(wanted, list) or len(set(wanted)) != len(wanted):
        raise FedpactError(
            f"study.contracts is {wanted!r}; legal is a list of different names, for example "
            "study.contracts=[no_sharing,full_sharing]."
        )
    for name in wanted:
        if name not in known:
            raise FedpactError(
                f"study.contracts holds {name!r}. {did_you_mean(str(name), list(known))}"
            )
    return Study(
        name=str(config["study"]["name"]),
        seeds=seeds_of(config["study"]["seeds"]),
        firms={name: make(config["parties"][name]) for name in sorted(config["parties"])},
        contracts={name: make(known[name]) for name in wanted},
        watch=_flag(config["study"]["watch"], "study.watch"),
        settles=config["study"]["settles"],
        away=away,
        confidence=config["study"]["confidence"],
        **parts,
    )


def _check_pool(config: Mapping[str, Any]) -> None:
    """A way to divide a pool is refused where no firm's data come from one."""
    if any("partition" in firm["dataset"] for firm in config["parties"].values()):
        return
    for key, plain in (("partition", Iid), ("shift", NoShift)):
        chosen = config[key]["_target_"]
        if chosen != f"{plain.__module__}.{plain.__qualname__}":
            raise FedpactError(
                f"{key} is {chosen}; these firms divide no pool, so it would change nothing. "
                "Leave it out, or use parties=ten_digits."
            )


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise FedpactError(f"{name} is {value!r}; legal are true and false.")
    return value


def seeds_of(value: object) -> tuple[int, ...]:
    """A number of seeds n means 0..n-1; a list is taken as it is."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return tuple(range(value))
    if isinstance(value, list | tuple):
        return tuple(value)
    raise FedpactError(
        f"study.seeds is {value!r}; legal is a number of seeds >= 1 or a list such as [0,1,2]."
    )


def _check_seeds(seeds: tuple[int, ...]) -> None:
    whole = all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in seeds)
    if not seeds or not whole or len(set(seeds)) != len(seeds):
        raise FedpactError(
            f"study.seeds is {list(seeds)}; legal are distinct whole numbers >= 0, at least one."
        )


def _check_confidence(value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < 1:  # type: ignore[operator]
        raise FedpactError(
            f"study.confidence is {value!r}; legal is a number between 0 and 1. For intervals of "
            f"{CONFIDENCE:.0%} leave it at {CONFIDENCE}."
        )
