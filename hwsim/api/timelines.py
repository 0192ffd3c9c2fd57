"""`timeline`: one phase on the clock of the discrete-event engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hwsim.api.answer import Answer
from hwsim.api.evaluation import prepare
from hwsim.engine.estimate import memory_of
from hwsim.engine.fit import require_fit
from hwsim.errors import unknown_name
from hwsim.frontends.formats import Formats
from hwsim.ir.platform import Device, Platform

if TYPE_CHECKING:
    import plotly.graph_objects as go


class PhaseTimeline(Answer):
    """Result of `timeline`: the `hwsim/timeline@1` document, its Gantt chart and its trace."""

    def __str__(self) -> str:
        from hwsim.report.timeline import table_text

        return table_text(self.document)

    def figure(self) -> go.Figure:
        """Gantt chart: one row a stream."""
        from hwsim.report.trace import gantt_figure

        return gantt_figure(self.document)

    def trace(self) -> str:
        """Trace Event Format as JSON text: opens in Perfetto and chrome://tracing."""
        from hwsim.report.trace import chrome_trace_text

        return chrome_trace_text(self.document)


def timeline(
    workload: str,
    hardware: str | Device | Platform,
    *,
    phase: str | None = None,
    technique: Mapping[str, Any] | None = None,
    batch: int = 1,
    prompt: int | None = None,
    output: int | None = None,
    **options: Any,
) -> PhaseTimeline:
    """One phase on the clock of the discrete-event engine, with an overlap technique.

    Parameters
    ----------
    phase: ``prefill``, ``decode`` or ``forward`` [decode, or the only one].
    technique: fields of `hwsim.explore.timelines.Technique`: streams, parts, unit_share, micro_batches, prefetch,
        depth, capacity.
    options: those of `evaluate`, what_if and check_fit [refuse what does not fit, but where weights are prefetched].

    Raises
    ------
    InputError, UnknownNameError, InfeasibleError: as `evaluate`, and for techniques that do not apply.
    """
    from hwsim.explore.timelines import Technique, timeline_document

    asked = dict(technique or {})
    for name in asked:
        if name not in Technique.__slots__:
            raise unknown_name("field of a technique", name, Technique.__slots__)
    what_if, check_fit = options.pop("what_if", None), options.pop("check_fit", not asked.get("prefetch"))
    model, platform, scenario, _ = prepare(workload, hardware, batch, prompt, output, what_if, options)
    formats = Formats.of(scenario.weights, scenario.activations or None, scenario.kv_cache or None)
    if check_fit:
        require_fit(model.model.name, platform, scenario, memory_of(model.model, platform, scenario, formats))
    return PhaseTimeline(timeline_document(model.model, platform, scenario, formats, phase, Technique(**asked)))
