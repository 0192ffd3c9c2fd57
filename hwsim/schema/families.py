"""Sections that only one device family reads (``Device.extra``); each is a strict model of its own.

To add a family: write its section model here, list it in `Families`, and write its file in `hwsim.cost`.
"""

from __future__ import annotations

from hwsim.schema.base import Strict


class Families(Strict):
    """Optional family sections of an accelerator file."""


FAMILY_SECTIONS: tuple[str, ...] = tuple(Families.model_fields)
