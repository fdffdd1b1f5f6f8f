"""Pages that people open: one file each, with no network, no script and no other file.

A drawing in a page is an SVG that takes its ink from the page, so that one serves a light and a
dark one.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

INK = "#010203"  # becomes currentColor
NONE = "\N{EN DASH}"
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "text.parse_math": False}
STYLE |= dict.fromkeys(("xtick.color", "ytick.color", "text.color"), INK)
STYLE |= dict.fromkeys(("axes.edgecolor", "axes.labelcolor"), INK) | {"legend.frameon": False}


def render(template: str, content: Mapping[str, Any]) -> bytes:
    """A page from a template of this package, such as "report.html"; words in it stay words."""
    pages = Environment(
        loader=PackageLoader("simulations", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    pages.filters |= {"number": number, "count": count}
    return pages.get_template(template).render(content).encode()


def svg(draw: Callable[[], Figure], style: Mapping[Any, Any], salt: str) -> Markup:
    """A drawing as an element of a page; the salt fixes the names of its inner parts."""
    file = io.StringIO()
    with mpl.rc_context({**STYLE, **style, "svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the reader's browser has more letters
        undated = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        draw().savefig(file, format="svg", transparent=True, metadata=undated)
    head, _, body = file.getvalue().partition("<svg")[2].partition(">")
    head = re.sub(r' xmlns(:\w+)?="[^"]*"', "", head)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    return Markup(f'<svg aria-hidden="true"{head}>{body}'.replace(INK, "currentColor"))


def with_own_ids(drawing: Markup, key: str) -> Markup:
    """The drawing with ids that no other drawing of its page has."""
    return Markup(re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{key}-", str(drawing)))


def number(value: float | None, sign: bool = False, digits: int = 4) -> str:
    """A number with four decimals; 0 only where it is exactly zero; a dash where there is none.

    >>> number(1234.5), number(0.25, sign=True), number(0.0)
    ('1,234.5000', '+0.2500', '0')
    """
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{value:{'+' if sign else ''},.{digits}f}" if value else "0"
    return text.replace("-", "\N{MINUS SIGN}")


def count(value: float | None) -> str:
    """A whole number; a dash where there is none."""
    return NONE if value is None or not math.isfinite(value) else f"{int(value):,}"
