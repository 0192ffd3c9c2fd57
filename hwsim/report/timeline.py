"""A `hwsim/timeline@1` document as a table and as a page with its Gantt chart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hwsim.units import si

Document = Mapping[str, Any]
LONGEST: Final = 12


def technique_line(document: Document) -> str:
    """What was asked, in words."""
    asked = document["technique"]
    words = [] if asked["stages"] > 1 or asked["prefetch"] else [f"streams: {asked['streams']}"]
    if asked["parts"] > 1:
        words.append(f"{asked['parts']} parts of the batch side by side")
    if asked["stages"] > 1:
        words.append(f"{asked['stages']} stages, {asked['micro_batches'] or asked['stages']} micro-batches")
    if asked["prefetch"]:
        words.append(f"weights over {asked['prefetch']}, {asked['depth']} layers ahead")
    if asked["unit_share"]:
        words.append(f"collectives take {100 * asked['unit_share']:g} % of the units")
    words += [f"{100 * part:g} % of {name}" for name, part in asked["capacity"].items()]
    return ", ".join(words)


def summary_rows(document: Document) -> list[tuple[str, str]]:
    """Label and value of the makespan and its bracket."""
    makespan, in_turn = document["makespan_s"], document["in_turn_s"]
    saved = 100 * (1 - makespan / in_turn) if in_turn else 0.0
    stages = [share for name, share in document["utilization"].items() if name.startswith("stage")]
    bubbles = [("bubbles of the stages", f"{100 * (1 - sum(stages) / len(stages)):.1f} %")] if stages else []
    return [
        ("makespan", si(makespan, "s")),
        ("critical path", si(document["critical_path_s"], "s")),
        ("sum of all jobs", si(document["serial_s"], "s")),
        ("one after another", f"{si(in_turn, 's')} ({abs(saved):.1f} % {'saved' if saved >= 0 else 'lost'})"),
        *bubbles,
        ("jobs", str(document["jobs"])),
    ]


def longest(document: Document) -> list[tuple[str, str, int, float, float]]:
    """Operator, stream, executions, total and mean seconds of the operators that take longest, by total."""
    totals: dict[tuple[str, str], list[float]] = {}
    for item in document["intervals"]:
        key = (item["name"].partition("#")[0], item["stream"])
        totals.setdefault(key, []).append(item["end_s"] - item["start_s"])
    rows = [(name, stream, len(times), sum(times), sum(times) / len(times)) for (name, stream), times in totals.items()]
    return sorted(rows, key=lambda row: (-row[3], row[0]))[:LONGEST]


def table_text(document: Document) -> str:
    """The schedule as text."""
    lines = [document["title"], technique_line(document), ""]
    lines += [f"{label:<24}{value}" for label, value in summary_rows(document)]
    lines += ["", "busy while it runs"]
    for name, share in sorted(document["utilization"].items(), key=lambda pair: -pair[1]):
        lines.append(f"  {name:<22}{100 * share:5.1f} %  {'#' * round(40 * min(share, 1.0))}")
    lines += ["", f"{'longest':<40}{'stream':<20}{'x':>6}{'total':>12}{'mean':>12}"]
    for name, stream, count, total, mean in longest(document):
        lines.append(f"{name:<40}{stream:<20}{count:>6}{si(total, 's'):>12}{si(mean, 's'):>12}")
    return "\n".join(lines)


def page(document: Document) -> str:
    """One HTML page: summary, utilization and the Gantt chart."""
    from hwsim.report.html import figure_blocks, render_page
    from hwsim.report.trace import gantt_figure

    return render_page(
        "timeline.html.j2",
        title=document["title"],
        technique=technique_line(document),
        summary=summary_rows(document),
        utilization=sorted(document["utilization"].items(), key=lambda pair: -pair[1]),
        longest=longest(document),
        figures=figure_blocks([("gantt", gantt_figure(document))]),
    )
