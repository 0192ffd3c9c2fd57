"""What the public functions answer: a plain document and its notebook view."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer(ABC):
    """A document, which is the contract, with its text as `str` and in notebooks."""

    document: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The document: plain data."""
        return self.document

    @abstractmethod
    def __str__(self) -> str:
        """The table that the command line prints."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"
