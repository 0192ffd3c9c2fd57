"""`check_mapper`: run a mapper on small cases whose truth is known and list which laws hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Protocol

from hwsim.errors import CheckFailedError, unknown_name
from hwsim.mapping.conformance.breaches import Breach
from hwsim.mapping.conformance.layouts import Layouts
from hwsim.mapping.conformance.placements import Placements
from hwsim.mapping.conformance.tilings import Tilings

BUDGET_S: Final = 0.5
GRACE_S: Final = 5.0  # interpreter, solver start-up and a busy machine; a mapper without any limit exceeds it


class Suite(Protocol):
    """The laws of one kind of mapper and how they are tested."""

    LAWS: ClassVar[dict[str, str]]
    OBJECTIVES: ClassVar[tuple[str, ...]]

    def run(self, objectives: tuple[str, ...]) -> tuple[list[Breach], dict[str, int], float]:
        """Breaches, cases a law, and the worst distance to the optimum."""


SUITES: Final[dict[str, Callable[[Any, float, float], Suite]]] = {
    "tiling": Tilings,
    "layout": Layouts,
    "placement": Placements,
}


@dataclass(frozen=True, slots=True)
class LawResult:
    """One law: in how many cases it was tested, and what broke it."""

    name: str
    text: str
    cases: int
    broken: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return not self.broken


@dataclass(frozen=True, slots=True)
class Conformance:
    """All laws of one mapper. `worst_gap` is the largest distance to the exhaustive optimum over the small cases."""

    mapper: str
    laws: tuple[LawResult, ...]
    worst_gap: float = 0.0
    notes: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        return all(law.holds for law in self.laws)

    def law(self, name: str) -> LawResult:
        """The law called `name`. Raises UnknownNameError."""
        for item in self.laws:
            if item.name == name:
                return item
        raise unknown_name("law", name, [item.name for item in self.laws])

    def raise_if_broken(self) -> None:
        """Raise CheckFailedError that lists what broke."""
        broken = [f"{law.name}: {law.broken[0]}" for law in self.laws if not law.holds]
        if broken:
            raise CheckFailedError(
                f"the mapper {self.mapper} breaks {len(broken)} of {len(self.laws)} laws", seen="; ".join(broken)
            )

    def __str__(self) -> str:
        lines = [f"{self.mapper}: {'conforms' if self.passed else 'does not conform'}"]
        for law in self.laws:
            mark = "holds" if law.holds else "BROKEN"
            tested = f"{law.cases} cases" if law.cases else "not applicable"
            lines.append(f"  {law.name:<14} {mark:<7} {law.text} ({tested})")
            lines += [f"      {text}" for text in law.broken[:3]]
        lines.append(f"  worst distance to the exhaustive optimum: {self.worst_gap * 100:.3g} %")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def check_mapper(
    mapper: Any, *, objectives: Sequence[str] = (), budget_s: float = BUDGET_S, grace_s: float = GRACE_S
) -> Conformance:
    """Hold a mapper against the laws of its kind (`mapper.kind`): ``tiling`` (the default), ``layout``, ``placement``.

    Parameters
    ----------
    mapper: an object with name, summary and map (`hwsim.mapping.protocol`), or with kind = "layout" (`mappers/
        parallelism.py`); `load_mapper(path).mapper` gives that of a file.
    objectives: those to test (none: all of the kind).
    budget_s, grace_s: the budget given to a large case, and the wall seconds by which it may be exceeded.

    Never raises for what the mapper does: exceptions of the mapper are breaches. Raises UnknownNameError for a kind or
    objective that does not exist.
    """
    kind = getattr(mapper, "kind", "tiling")
    if kind not in SUITES:
        raise unknown_name("kind of mapper", str(kind), SUITES)
    suite = SUITES[kind](mapper, budget_s, grace_s)
    for name in objectives:
        if name not in suite.OBJECTIVES:
            raise unknown_name("objective", name, suite.OBJECTIVES)
    breaches, counts, worst = suite.run(tuple(objectives) or suite.OBJECTIVES)
    laws = tuple(
        LawResult(name, text, counts.get(name, 0), tuple(what for law, what in breaches if law == name))
        for name, text in suite.LAWS.items()
    )
    return Conformance(str(getattr(mapper, "name", type(mapper).__name__)), laws, worst)
