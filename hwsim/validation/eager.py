"""Whole models in eager PyTorch (``transformer_layer.csv`` schema): one kernel an operator, summed.

An eager framework launches every operator by itself, writes every intermediate to memory and fuses nothing, so a pass
is the sum of its GEMM, batched GEMM and vector kernels under their ``@eager`` parameters. Operators follow the public
Hugging Face modules: scores are scaled, masked and normalized by separate kernels; GPT-2's tanh GELU is eight
element-wise kernels. A backward pass runs two GEMMs for each one of the forward pass, and
reads and writes twice the vector bytes.

Parallel options: ``dp4`` divides the batch; ``tp4`` the widths, with two all-reduces a layer and direction;
``pp4_1`` (four stages, one micro-batch) runs the stages one after another, as long as one GPU would.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from hwsim.cost.gpu.donors import choose
from hwsim.cost.gpu.facts import facts
from hwsim.cost.gpu.registry import family
from hwsim.errors import HwsimError, InputError, unknown_name
from hwsim.ir.platform import Device
from hwsim.schema.loader import load_hardware

COLUMNS: Final = ("gpu", "model", "mode", "dtype", "tp", "batch", "seq_len", "options", "quantity", "latency_us")
ELEMENT_BYTES: Final = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0}
TANH_GELU_KERNELS: Final = ("pow_scalar", "mul_scalar", "add", "mul_scalar", "tanh", "add_scalar", "mul", "mul_scalar")


@dataclass(frozen=True, slots=True)
class Decoder:
    """Published shape of a decoder or encoder stack (Hugging Face configs; GPT-3 from Brown et al. 2020, table 2.1)."""

    layers: int
    hidden: int
    n_heads: int
    vocab: int
    activation: str = "gelu_tanh"
    masked: bool = True


MODELS: Final = {
    "bert_large": Decoder(24, 1024, 16, 30522, "gelu", masked=False),
    "gpt2_large": Decoder(36, 1280, 20, 50257),
    # 24 heads of 128, as the table of the paper lists them: 3072 wide in projections
    "gpt3_xl": Decoder(24, 3072, 24, 50257),
    "gpt3_27": Decoder(32, 2560, 32, 50257),
    "opt_13": Decoder(24, 2048, 32, 50272, "relu"),
    "gpt3-175b-1layer": Decoder(1, 12288, 96, 0, "gelu"),
}


@dataclass(frozen=True, slots=True)
class Gemm:
    """`count` equal multiplies out[m,n] = act[m,k] x weight[k,n]; batch > 1 is a batched matmul."""

    name: str
    count: float
    batch: float
    m: float
    n: float
    k: float


@dataclass(frozen=True, slots=True)
class Vector:
    """`count` equal vector kernels over rows x cols elements with `reads` and one output of that size."""

    name: str
    op: str
    count: float
    rows: float
    cols: float
    reads: float = 1.0


Kernel = Gemm | Vector


def forward(d: Decoder, batch: float, seq: float, tp: float = 1.0, fused: bool = False) -> list[Kernel]:
    """Kernels of a forward pass on one of `tp` GPUs. `fused`: chains of element-wise operators as one kernel."""
    t, h, heads = batch * seq, d.hidden, d.n_heads / tp
    width, scores, layers = d.hidden / d.n_heads, batch * d.n_heads / tp * seq, float(d.layers)
    kernels: list[Kernel] = [
        Vector("layer_norm", "layernorm", 2 * layers + 1, t, h),
        Gemm("qkv", layers, 1, t, 3 * h / tp, h),
        Vector("split_heads", "mul_scalar", layers, t, 3 * h / tp),
        Gemm("scores", layers, batch * heads, seq, seq, width),
        Vector("softmax", "softmax", layers, scores, seq),
        Gemm("values", layers, batch * heads, seq, width, seq),
        Vector("merge_heads", "mul_scalar", layers, t, h / tp),
        Gemm("projection", layers, 1, t, h, h / tp),
        Gemm("up", layers, 1, t, 4 * h / tp, h),
        Gemm("down", layers, 1, t, h, 4 * h / tp),
        Vector("residual", "add", 2 * layers, t, h, 2),
    ]
    if d.vocab:
        kernels.append(Gemm("logits", 1, 1, t, d.vocab / tp, h))
    chain = [] if fused else [Vector("scale", "div_scalar", layers, scores, seq)]
    if d.masked and not fused:
        chain.append(Vector("mask", "add", layers, scores, seq))
    steps = (
        ("gelu" if d.activation != "relu" else "relu",) if fused or d.activation != "gelu_tanh" else TANH_GELU_KERNELS
    )
    chain += [Vector(f"activation_{i}", op, layers, t, 4 * h / tp, 2.0 if op in ("add", "mul") else 1.0)
              for i, op in enumerate(steps)]  # fmt: skip
    return [*kernels, *chain]


def time_s(device: Device, kernels: Sequence[Kernel], dtype: str) -> dict[str, float]:
    """Seconds of each kernel, all its executions together, by name. Raises InputError without a calibration."""
    gemms = [k for k in kernels if isinstance(k, Gemm)]
    out = dict(zip([g.name for g in gemms], _gemm_s(device, gemms, dtype), strict=True))
    for kernel in kernels:
        if isinstance(kernel, Vector):
            out[kernel.name] = _vector_s(device, kernel, dtype)
    return out


def _gemm_s(device: Device, gemms: Sequence[Gemm], dtype: str) -> list[float]:
    if not gemms:
        return []
    names = ("batch", "m", "n", "k")
    columns: dict[str, Any] = {n: np.array([getattr(g, n) for g in gemms], dtype=np.float64) for n in names}
    counts = np.array([g.count for g in gemms])
    return list(counts * _times(device, "gemm", f"{dtype}@eager", columns))


def _vector_s(device: Device, kernel: Vector, dtype: str) -> float:
    moved = kernel.rows * kernel.cols * ELEMENT_BYTES[dtype]
    columns = {"rows": kernel.rows, "cols": kernel.cols, "bytes_read": moved * kernel.reads, "bytes_written": moved}
    arrays = {n: np.array([v], dtype=np.float64) for n, v in columns.items()}
    return float(kernel.count * _times(device, "vector", f"{kernel.op}@eager", arrays)[0])


def _times(device: Device, name: str, kernel_class: str, columns: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    model = family(name)
    choice = choose(device.calibration, model, kernel_class)
    if not choice.donor:
        raise InputError(
            f"no calibration covers {kernel_class} of {name} on {device.name}", fix="run `hwsim calibrate`"
        )
    return np.asarray(model.time(columns, facts(device), kernel_class, choice.parameters).time_s)


@dataclass(frozen=True, slots=True)
class Pass:
    """One row of the file."""

    line: int
    text: Mapping[str, str]

    def number(self, name: str) -> float:
        return float(self.text[name] or "nan")


def predict_pass(row: Pass) -> float:
    """Predicted seconds of a row. Raises UnknownNameError for a model without a published shape here."""
    text = row.text
    if text["model"] not in MODELS:
        raise unknown_name("eager model", text["model"], MODELS)
    shape, device = MODELS[text["model"]], load_hardware(text["gpu"]).platform.device
    if text["mode"] == "decode":
        return _layer_decode(shape, device, row)
    options = text["options"]
    batch = row.number("batch") / (4 if options == "dp4" else 1)
    tp = 4.0 if options == "tp4" else 1.0
    kernels = forward(shape, batch, row.number("seq_len"), tp, fused="fusion" in options)
    one_way = time_s(device, kernels, text["dtype"])
    ahead = sum(one_way.values())
    back = 2.0 * ahead
    wire = 0.0
    if tp > 1:  # two all-reduces of the activations a layer
        wire = 2.0 * shape.layers * _all_reduce_s(device, batch * row.number("seq_len") * shape.hidden * 4.0, 4)
    total = {"fw": ahead + wire, "bwall": back + wire, "e2e": ahead + wire}
    if text["mode"] == "train":
        total["e2e"] = ahead + back + 2.0 * wire
    if text["quantity"] not in total:
        raise unknown_name("quantity", text["quantity"], total)
    return total[text["quantity"]]


def _all_reduce_s(device: Device, message: float, ranks: float) -> float:
    """NCCL all-reduce inside a node with NVLink."""
    columns: dict[str, Any] = {
        "bytes": np.array([message]),
        "n_gpus": np.array([ranks]),
        "op": np.array(["all_reduce"]),
    }
    columns |= {"topology": np.array(["single-node-nvswitch"]), "backend": np.array(["nccl"])}
    return float(_times(device, "collective", "all_reduce@nvlink", columns)[0])


def _layer_decode(d: Decoder, device: Device, row: Pass) -> float:
    """One tensor-parallel decode layer, by operator; TOTAL is their sum."""
    b, context, tp, h = row.number("batch"), row.number("seq_len"), row.number("tp"), float(d.hidden)
    heads, width = b * d.n_heads / tp, h / d.n_heads
    kernels: list[Kernel] = [
        Gemm("Q_K_V", 3, 1, b, h / tp, h), Gemm("Q_mul_K", 1, heads, 1, context, width),
        Gemm("A_mul_V", 1, heads, 1, width, context), Gemm("Wo_proj", 1, 1, b, h, h / tp),
        Gemm("W1_proj", 1, 1, b, 4 * h / tp, h), Gemm("W2_proj", 1, 1, b, h, 4 * h / tp),
        Vector("Softmax", "softmax", 1, heads, context), Vector("LayerNorm_MHA", "layernorm", 1, b, h),
        Vector("LayerNorm_FFN", "layernorm", 1, b, h), Vector("GeLU", "gelu", 1, b, 4 * h / tp),
    ]  # fmt: skip
    times = time_s(device, kernels, row.text["dtype"])
    reduce = _all_reduce_s(device, b * h * ELEMENT_BYTES[row.text["dtype"]], tp)
    times |= {"AllReduce_MHA": reduce, "AllReduce_FFN": reduce}
    times["TOTAL"] = sum(times.values())
    if row.text["quantity"] not in times:
        raise unknown_name("quantity", row.text["quantity"], times)
    return times[row.text["quantity"]]


def read_passes(path: Path) -> list[Pass]:
    """Rows of the file. Raises InputError where it or its columns are wrong."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            header, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("cannot read the eager runs", where=str(path), seen=str(error)[:120]) from None
    missing = [c for c in COLUMNS if c not in header]
    if missing:
        raise InputError("the columns are not those of eager runs", where=str(path), fix=f"add {', '.join(missing)}")
    return [Pass(i + 2, {k: v or "" for k, v in row.items() if k}) for i, row in enumerate(rows)]


def validate_eager(path: Path | str) -> dict[str, Any]:
    """Predicted beside measured microseconds of each row, and the mean error by GPU and mode."""
    path = Path(path)
    path = path / "transformer_layer.csv" if path.is_dir() else path
    rows: list[dict[str, Any]] = []
    skipped: dict[str, int] = {}
    for row in read_passes(path):
        try:
            predicted = predict_pass(row) * 1e6
        except (HwsimError, ValueError) as error:
            reason = error.what if isinstance(error, HwsimError) else "a number cannot be read"
            skipped[reason] = skipped.get(reason, 0) + 1
            continue
        measured = row.number("latency_us")
        keys = ("gpu", "model", "mode", "batch", "seq_len", "options", "quantity")
        error_percent = 100.0 * (predicted / measured - 1.0)
        rows.append(
            {k: row.text[k] for k in keys}
            | {"pred_us": predicted, "measured_us": measured, "error_percent": error_percent}
        )
    groups: dict[str, list[float]] = {}
    for item in rows:
        for key in (f"{item['gpu']} {item['mode']}", f"all {item['mode']}", "all"):
            groups.setdefault(key, []).append(abs(item["error_percent"]))
    summary = [{"group": k, "n": len(v), "mape_percent": float(np.mean(v)), "median_percent": float(np.median(v))}
               for k, v in sorted(groups.items())]  # fmt: skip
    return {"schema": "hwsim/validate-eager@1", "file": path.name, "summary": summary, "rows": rows, "skipped": skipped}
