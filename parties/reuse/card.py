"""What a maker says of its model to people: the model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from parties.reuse.bounded import ArtifactError, is_text

CARD_FIELDS = (
    *("licence", "task", "data", "inputs", "outputs", "metrics", "limits", "contact"),
    *("parent", "round", "contract"),
)
"""Fields of a model card."""


@final
@dataclass(frozen=True)
class Card:
    """A model card: `key: value` lines between two lines `---`, then free text in Markdown.

    Args:
        fields: the keys are among `CARD_FIELDS`; "" where the maker says nothing.
        text: what else there is to say.
    """

    fields: Mapping[str, str]
    text: str = ""

    def __post_init__(self) -> None:
        for name, value in self.fields.items():
            if name not in CARD_FIELDS or (value and not is_text(value, 2000)):
                raise ArtifactError(
                    f"CARD.md has {name!r}: {value!r:.100}; legal are one line each of "
                    f"{', '.join(CARD_FIELDS)}. Put the rest below the front matter."
                )

    def to_text(self) -> str:
        """The file's text."""
        lines = [f"{name}: {self.fields.get(name, '')}".rstrip() for name in CARD_FIELDS]
        return "\n".join(["---", *lines, "---", self.text])


def read_card(content: bytes) -> Card:
    """A card from its bytes.

    >>> read_card(b"---\\ntask: digits\\n---\\n# Model").fields["task"]
    'digits'
    """
    try:
        lines = content.decode("utf-8").split("\n")
        end = lines.index("---", 1)
    except ValueError as fault:
        raise ArtifactError(
            "CARD.md has no front matter in UTF-8; legal are `key: value` lines between two lines "
            "`---`. Write it with write_artifact."
        ) from fault
    fields: dict[str, str] = {}
    for line in lines[1:end]:
        name, colon, value = line.partition(":")
        if lines[0] != "---" or not colon or name in fields:
            raise ArtifactError(
                f"CARD.md has the line {line[:80]!r}; legal is `key: value`, each key once, below "
                "a first line `---`. Mend it."
            )
        fields[name] = value.strip()
    return Card(fields, "\n".join(lines[end + 1 :]))
