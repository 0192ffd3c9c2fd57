"""Attention operators of a graph as fused problems, and what a fused mapping means for the cost models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from hwsim.ir.platform import Device
from hwsim.ir.workload import Operator
from hwsim.mapping.decide.effects import Effect
from hwsim.mapping.fused.problem import Attention
from hwsim.mapping.fused.search import FusedDecision
from hwsim.mapping.machine import Machine

FLOP_PER_LANE: Final = 2  # vector peaks count a fused multiply-add as two operations; softmax has no such pairs


def attention_of(operator: Operator, bits: Sequence[float], word_bits: float) -> Attention:
    """The fused problem of an attention operator (one execution).

    bits: stored bits of an element of Q, of K and V, of the scores, of the output. A window narrower than the context
    counts as that many keys for every query.
    """
    d = {key: int(np.ceil(float(value))) for key, value in operator.dims.items()}
    positions = d.get("q_len", 1)
    keys = d["context"] if "context" in d else positions + d.get("prefix", 0)
    window = d.get("window", 0)
    causal = bool(d.get("causal", 0)) and "q_len" in d and not 0 < window < keys
    group = max(d["n_heads"] // d["n_kv_heads"], 1)
    q, kv, s, o = (b / word_bits for b in bits)
    return Attention(
        batch=d["batch"] * d["n_kv_heads"],
        rows=positions * group,
        keys=min(keys, window) if window else keys,
        head_dim=d["head_dim"],
        value_dim=d.get("v_head_dim") or d["head_dim"],
        causal=causal,
        group=group,
        widths=(q, kv, s, o),
        name=operator.name,
    )


def vector_per_cycle(device: Device) -> float:
    """Softmax operations a cycle of the vector units of a whole device; 0: it lists none."""
    peaks = [float(np.max(c.peak_flop_per_s)) for c in device.compute if c.unit == "vector"]
    return max(peaks, default=0.0) / FLOP_PER_LANE / float(device.clock_hz)


def effect_of_fused(machine: Machine, device: Device, a: Attention, decision: FusedDecision) -> Effect:
    """Seconds, and bytes beyond Q, K, V and output once."""
    word = machine.word_bits / 8
    counts = decision.counts
    main = machine.levels[-1].memory
    computing = max(counts.cycles_by["compute"], counts.cycles_by.get("softmax", 0.0))
    near = {level.memory for level in machine.levels[:-1]}
    known = {m.name for m in device.memories}
    return Effect(
        compute_s=computing / machine.clock_hz,
        excess_bytes=max(counts.words_by[main] - a.compulsory_words, 0.0) * word,
        level_s={name: c / machine.clock_hz for name, c in counts.cycles_by.items() if name in near},
        moved_bytes={name: words * word for name, words in counts.words_by.items() if name in known},
    )


def fused_document(machine: Machine, a: Attention, decision: FusedDecision, known: bool) -> dict[str, Any]:
    """A fused mapping as plain data: problem, tiles, words, cycles, energy (None where `known` is False), proof."""
    counts, report = decision.counts, decision.report
    pj = 1e-12
    return {
        "name": a.name,
        "problem": {"batch": a.batch, "rows": a.rows, "keys": a.keys, "head_dim": a.head_dim,
                    "value_dim": a.value_dim, "causal": a.causal, "group": a.group},
        "tiling": decision.tiling.to_dict(),
        "words": dict(counts.words_by),
        "compulsory_words": a.compulsory_words,
        "cycles": float(counts.cycles),
        "cycles_by": dict(counts.cycles_by),
        "time_s": float(counts.cycles) / machine.clock_hz,
        "energy_j": float(counts.energy) * pj if known else None,
        "utilization": float(counts.macs) / (float(counts.cycles) * machine.multipliers),
        "solver": report.solver,
        "status": report.status,
        "objective": report.objective,
        "bound": report.bound,
        "gap": report.gap,
    }  # fmt: skip
