"""Plan documents as one HTML page: layouts in a table, throughput over TPOT with the front as a drawing. No script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from hwsim.report import parallelism as text
from hwsim.units import gib, si

Document = dict[str, Any]
WIDTH: Final = 1100
HEIGHT: Final = 430
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 16, 50  # margins of the drawing
STEPS: Final = (1, 2, 5)  # ticks of a decade
PAD: Final = 0.06  # share of an axis left free at its ends
NUMBER_HEIGHT: Final = 13  # pixels between the numbers of points that would hide each other


def plan_page(document: Document) -> str:
    """One self-contained page of a plan document: drawing and tables of layouts, else the text of the answer."""
    if document["schema"] != "hwsim/parallelism@1":
        return _plain(document)
    from hwsim.report.html import render_page

    front = document["pareto"]
    return render_page(
        "layouts.html.j2",
        title=text.headline(document),
        question=text.question_line(document),
        facts=_facts(document["chosen"]),
        proof=text.proof_text(document).split("\n"),
        drawing=_drawing(document),
        header=text.HEADER,
        ranking=[text.cells(row) for row in document["ranking"]],
        front=[text.cells(row)[:-1] for row in text.thinned(front)],
        front_size=len(front),
        considered=text.considered_line(document["considered"]),
        binds=text.bind_lines(document),
        warnings=document.get("warnings", ()),
        plain="",
    )


def _plain(document: Document) -> str:
    """Plans of stages and of training: the printed answer, its first line as the title."""
    from hwsim.report.html import render_page

    title, _, body = text.plan_text(document).partition("\n")
    return render_page("layouts.html.j2", title=title, plain=body, warnings=document.get("warnings", ()))


def _facts(best: Document) -> list[tuple[str, str]]:
    cost = best["cost_usd_per_mtok"]
    found = [
        ("layout", text.layout_name(best)),
        ("batch", f"{best['batch']:,}"),
        ("TTFT", si(best["ttft_s"], "s")),
        ("TPOT", si(best["tpot_s"], "s") if best["tpot_s"] else ""),
        ("token/s", f"{best['tokens_per_s']:,.0f}"),
        ("token/s/device", f"{best['tokens_per_s_device']:.4g}"),
        ("memory of a device", f"{gib(best['memory_bytes'])}, {best['memory_fill'] * 100:.0f} %"),
        ("energy", si(best["energy_j_per_token"], "J") + "/token"),
        ("cost", "" if cost is None else f"{cost:.3g} USD/Mtoken"),
    ]
    return [(name, value) for name, value in found if value]


@dataclass(frozen=True, slots=True)
class _Axis:
    """A logarithmic axis: values from `low` to `high` on pixels from `at` to `to`."""

    low: float
    high: float
    at: float
    to: float

    @classmethod
    def over(cls, values: Sequence[float], at: float, to: float) -> _Axis:
        """An axis that holds the values, all above 0, with some room."""
        low, high = math.log10(min(values)), math.log10(max(values))
        room = max((high - low) * PAD, 0.05)
        return cls(10 ** (low - room), 10 ** (high + room), at, to)

    def pixel(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return round(self.at + share * (self.to - self.at), 2)

    def ticks(self) -> list[float]:
        """1, 2, 5 of every decade within the axis; decades alone where those are many."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = STEPS if len(decades) <= len(STEPS) + 1 else STEPS[:1]
        return [v for k in decades for s in steps if self.low <= (v := s * 10.0**k) <= self.high]


def _drawing(d: Document) -> Document:
    """Throughput of a device over seconds between tokens (a request, without decoding): front, ranking, limit."""
    name = "tpot_s" if d["chosen"]["tpot_s"] else "latency_s"
    rows = [*d["pareto"], *d["ranking"]]
    limit = d["slo"]["tpot_s"] if name == "tpot_s" else None
    x = _Axis.over([r[name] for r in rows] + ([limit] if limit else []), LEFT, WIDTH - RIGHT)
    y = _Axis.over([r["tokens_per_s_device"] for r in rows], HEIGHT - BOTTOM, TOP)
    front = [_point(r, name, x, y) for r in sorted(d["pareto"], key=lambda r: r[name])]
    ranked = [_point(r, name, x, y) | {"number": i + 1} for i, r in enumerate(d["ranking"])]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
        "x_title": "time between tokens (TPOT)" if name == "tpot_s" else "time of a request",
        "x_ticks": [(x.pixel(v), si(v, "s")) for v in x.ticks()],
        "y_ticks": [(y.pixel(v), f"{v:g}") for v in y.ticks()],
        "line": " ".join(f"{p['x']},{p['y']}" for p in front),
        "front": front,
        "ranked": _numbered(ranked),
        "limit": x.pixel(limit) if limit else None,
    }


def _point(row: Document, name: str, x: _Axis, y: _Axis) -> Document:
    said = f"{text.layout_name(row)}, batch {row['batch']}: {si(row[name], 's')}, "
    rate = row["tokens_per_s_device"]
    return {"x": x.pixel(row[name]), "y": y.pixel(rate), "text": f"{said}{rate:.4g} token/s/device"}


def _numbered(points: list[Document]) -> list[Document]:
    """Points with places for their numbers, moved down where they would hide each other."""
    taken: list[tuple[float, float]] = []
    for point in points:
        x, y = point["x"] + 9, point["y"] + 4
        while any(abs(x - a) < 2 * NUMBER_HEIGHT and abs(y - b) < NUMBER_HEIGHT for a, b in taken):
            y += 1.0
        taken.append((x, y))
        point |= {"label_x": x, "label_y": y}
    return points
