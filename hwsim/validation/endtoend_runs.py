"""Serving benchmarks as rows: what a file holds, which rows can be predicted, and the platform each ran on."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from hwsim import content
from hwsim.errors import HwsimError, InputError
from hwsim.ir.platform import Platform
from hwsim.schema.loader import load_hardware

Deployment = tuple[str, str, str, int, int]  # model, GPU, weight format, tensor and expert parallel ranks
COLUMNS: Final = ("model", "gpu", "backend", "isl", "osl", "concurrency", "tp", "ttft_ms", "tpot_ms")
MOST_ROWS: Final = 200_000  # read of a file; more is no benchmark
# Benchmarks name fp8 checkpoints by their quantization; catalog format of (precision, gemm_quant).
_FORMATS: Final = {
    ("fp8", "fp8_block"): "fp8_blk",
    ("fp8", "fp8"): "fp8",
    ("fp4", "nvfp4"): "nvfp4",
    ("fp16", ""): "fp16",
    ("", ""): "bf16",
}
_NATIVE: Final = {"gpt-oss": "mxfp4", "minimax": "fp8_blk", "deepseek-r1": "fp8_blk", "deepseek-v3": "fp8_blk"}
"""Checkpoints published in a narrow format: engines load them as they are, whatever the run is called."""


def published_format(model: str) -> str | None:
    """Weight format of a checkpoint that is published in a narrow one; None where it is not."""
    return next((name for part, name in _NATIVE.items() if part in model.lower()), None)


@dataclass(frozen=True, slots=True)
class Run:
    """One benchmark row. `line` is 1-based; empty numbers are NaN."""

    line: int
    text: Mapping[str, str]

    def number(self, name: str) -> float:
        value = self.text.get(name, "")
        try:
            return float(value) if value else float("nan")
        except ValueError:
            return float("nan")

    @property
    def weights(self) -> str:
        """Catalog name of the weight format."""
        native = published_format(self.text["model"])
        key = (self.text.get("precision", ""), self.text.get("gemm_quant", ""))
        return native or _FORMATS.get(key) or _FORMATS.get((key[0], key[0]), "bf16")


@dataclass(frozen=True, slots=True)
class Scored:
    """Predictions in milliseconds beside a run."""

    run: Run
    ttft_ms: float
    tpot_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """Scored runs, and why others were left out: reason -> rows."""

    scored: tuple[Scored, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)


def read_runs(path: Path) -> list[Run]:
    """Rows of a serving CSV. Raises InputError where the file or its columns are wrong."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            header = reader.fieldnames or []
            rows = [
                Run(i + 2, {k: v or "" for k, v in row.items() if k}) for i, row in enumerate(reader) if i < MOST_ROWS
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("cannot read the serving runs", where=str(path), seen=str(error)[:120]) from None
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise InputError(
            "the columns are not those of serving runs",
            where=str(path),
            seen=", ".join(header)[:200],
            fix=f"add {', '.join(missing)}",
        )
    return rows


def unusable(run: Run) -> str:
    """Why a row has no prediction, or nothing."""
    if run.text.get("mode", "agg") != "agg":
        return f"mode {run.text['mode'][:20]}: not a closed loop on one deployment"
    numbers = [run.number(k) for k in ("isl", "osl", "concurrency", "tp", "ttft_ms", "tpot_ms")]
    if not all(np.isfinite(v) and v > 0 for v in numbers):
        return "a length, degree or measured time is missing"
    return "pipeline parallel" if run.number("pp") > 1 else ""


def score_deployments(
    runs: Sequence[Run], refused: Callable[[Run], str], predict: Callable[[Deployment, Sequence[Run]], list[Scored]]
) -> Report:
    """`predict` asked once for each deployment; `refused` says why a row is left out, or nothing."""
    groups: dict[Deployment, list[Run]] = {}
    skipped: dict[str, int] = {}
    for run in runs:
        reason = refused(run)
        if reason:
            skipped[reason] = skipped.get(reason, 0) + 1
        else:
            groups.setdefault(_deployment(run), []).append(run)
    scored: list[Scored] = []
    for deployment, members in groups.items():
        try:
            scored += predict(deployment, members)
        except HwsimError as error:
            skipped[error.what] = skipped.get(error.what, 0) + len(members)
    return Report(tuple(sorted(scored, key=lambda s: s.run.line)), skipped)


def _deployment(run: Run) -> Deployment:
    tp = int(run.number("tp"))
    ranks = run.number("moe_ep")
    experts = int(min(ranks, tp)) if np.isfinite(ranks) and ranks > 1 else 1
    return run.text["model"], run.text["gpu"], run.weights, tp, experts


def node_of(gpu: str, ranks: int) -> Platform:
    """A platform with at least `ranks` of that GPU: the device alone, the first shipped node, or bare copies."""
    alone = load_hardware(gpu).platform
    if ranks == 1:
        return alone
    for name in sorted(content.catalog("node")):
        node = load_hardware(name).platform
        if node.device.name == alone.device.name and node.count >= ranks:
            return node
    return alone.with_(count=ranks)
