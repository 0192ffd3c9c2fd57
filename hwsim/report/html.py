"""Self-contained HTML: one page a result, no remote script, everything escaped; and the notebook fragment."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hwsim import __version__, content
from hwsim.report import rows

if TYPE_CHECKING:
    import plotly.graph_objects as go


_CONFIG: Final = {"displaylogo": False, "displayModeBar": False}


def page(document: rows.Document) -> str:
    """The estimate as one HTML page with roofline, time and memory figures (about 5 MB: plotly is inside)."""
    from hwsim.report import figures

    drawn = [
        ("roofline", figures.roofline_figure(document)),
        ("time", figures.time_figure(document)),
        ("memory", figures.memory_figure(document)),
    ]
    return render_page(
        "estimate.html.j2",
        title=rows.headline(document),
        document=document,
        warnings=[text for text in (rows.misfit(document), *document["warnings"]) if text],
        figures=figure_blocks(drawn),
        metrics=rows.metric_rows(document),
        tasks=rows.task_rows(document),
        scenario=rows.scenario_line(document),
        memory=rows.memory_line(document),
    )


def figure_blocks(figures: list[tuple[str, go.Figure]]) -> list[str]:
    """HTML of figures; the first carries the one copy of plotly. Fixed ids keep pages byte-stable."""
    return [
        figure.to_html(full_html=False, include_plotlyjs=index == 0, div_id=f"figure-{name}", config=_CONFIG)
        for index, (name, figure) in enumerate(figures)
    ]


def render_page(template: str, **values: Any) -> str:
    """Fill a template of the ``reports`` content folder; every value is escaped unless it is a figure block."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from hwsim.units import gib, si

    folder: Path = content.root() / "reports"
    environment = Environment(
        loader=FileSystemLoader(str(folder)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"si": si, "gib": gib, "quantity": rows.quantity}
    return environment.get_template(template).render(version=__version__, **values)


def fragment(document: rows.Document) -> str:
    """A small notebook view: headline and collapsible tables, no script, every cell escaped."""
    metric_cells = "".join(
        f"<tr><td>{_e(r.label)}</td><td>{_e(r.value)}</td><td>{_e(r.band)}</td><td>{_e(r.limits)}</td></tr>"
        for r in rows.metric_rows(document)
    )
    from hwsim.units import si

    task_cells = "".join(
        f"<tr><td>{_e(r.phase)}</td><td>{_e(r.name)}</td><td>{r.count}</td><td>{_e(si(r.time_s, 's'))}</td>"
        f"<td>{100 * r.share:.1f} %</td><td>{_e(r.bound)}</td></tr>"
        for r in rows.task_rows(document)
    )
    warnings = "".join(f"<li>{_e(text)}</li>" for text in document["warnings"])
    return (
        f"<div><b>{_e(rows.headline(document))}</b><br><small>{_e(rows.scenario_line(document))}<br>"
        f"{_e(rows.memory_line(document))}</small>"
        f"<table><tr><th>metric</th><th>value</th><th>band</th><th>floor - ceiling</th></tr>{metric_cells}</table>"
        f"<details><summary>operators</summary><table><tr><th>phase</th><th>operator</th><th>x</th><th>time</th>"
        f"<th>share</th><th>bound by</th></tr>{task_cells}</table></details>"
        + (f"<details><summary>warnings</summary><ul>{warnings}</ul></details>" if warnings else "")
        + "</div>"
    )


def _e(text: object) -> str:
    return html.escape(str(text))
