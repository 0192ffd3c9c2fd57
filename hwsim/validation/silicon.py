"""Reader of the measured kernel tables that the package aiconfigurator-core carries (extra ``[silicon]``).

Layout read here (version 0.12): ``systems/data/<gpu>/<group>/<backend>/<version>/*_perf.parquet``, latency in
milliseconds. Rows become `Table`s of hwsim's own schemas; nothing of the package is imported or copied.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.cost.gpu.registry import family
from hwsim.errors import InputError, MissingExtraError, unknown_name
from hwsim.validation.table import Table

Array = NDArray[Any]
PACKAGES = ("aiconfigurator_core", "aisimulate")
MAX_ROWS = 20_000  # rows a file keeps, evenly spread; the tables are dense grids
_FORMATS = {
    "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "fp8": "fp8", "fp8_block": "fp8_blk", "sq": "int8",
    "int8": "int8", "int8_wo": "bf16+int8", "int4_wo": "bf16+int4", "nvfp4": "fp4",
}  # fmt: skip
_OPS = {"alltoall": "all_to_all"}


def data_root() -> Path:
    """Folder of the tables of the installed package. Raises MissingExtraError."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        for base in spec.submodule_search_locations or () if spec is not None else ():
            found = Path(base) / "systems" / "data"
            if found.is_dir():
                return found
    raise MissingExtraError("aiconfigurator-core", "silicon", "reading measured silicon tables")


def silicon_tables(gpu: str, root: Path | None = None) -> list[Table]:
    """Tables of one GPU folder (``h100_sxm``), the newest version of each backend.

    Raises MissingExtraError without the package or pyarrow, UnknownNameError for a GPU without tables.
    """
    base = root if root is not None else data_root()
    folders = {p.name: p for p in sorted(base.iterdir()) if p.is_dir()} if base.is_dir() else {}
    if gpu not in folders:
        raise unknown_name("silicon table", gpu, folders, where=str(base))
    tables = []
    for file, convert in _FILES.items():
        for path in sorted(folders[gpu].glob(f"*/*/*/{file}_perf.parquet")):
            if path.parent == newest(path.parent.parent):
                tables.append(table_of(path, gpu.replace("_", "-"), convert))
    if not tables:
        raise InputError(f"no kernel tables of {gpu}", where=str(folders[gpu]), fix="another version of the package")
    return [t for t in tables if len(t)]


def newest(folder: Path) -> Path:
    """The version folder that sorts last, numbers as numbers."""
    return max((p for p in folder.iterdir() if p.is_dir()), key=lambda p: _version(p.name))


def _version(name: str) -> tuple[tuple[int, int, str], ...]:
    """Numbers by value, a release after its candidates: 1.3.0rc9 < 1.3.0rc20 < 1.3.0."""
    parts = re.findall(r"\d+|[a-z]+", name.lower())
    return (*((2, int(p), "") if p.isdigit() else (0, 0, p) for p in parts), (1, 0, ""))


def table_of(path: Path, gpu: str, convert: Callable[[Mapping[str, Array]], tuple[str, dict[str, Any]]]) -> Table:
    """One parquet file as a `Table`; formats that hwsim has no kernel for are left out."""
    raw = read_parquet(path)
    n = len(raw["latency"])
    keep = np.linspace(0, n - 1, min(n, MAX_ROWS)).astype(int)
    raw = {name: values[keep] for name, values in raw.items()}
    name, columns = convert(raw)
    backend, version = path.parents[1].name, path.parent.name
    columns |= {"gpu": np.full(len(keep), gpu), "latency_us": raw["latency"].astype(float) * 1e3}
    columns.setdefault("backend", np.full(len(keep), backend))
    columns["version"] = np.full(len(keep), version)
    good = columns["latency_us"] > 0
    for known in ("dtype_act", "dtype", "kv_dtype"):
        good &= columns[known] != "" if known in columns else True
    good &= _valid(family(name), columns)
    kept = {k: v[good] for k, v in columns.items()}
    return Table(family(name), kept, np.flatnonzero(good) + 1, name=path.name, index=np.flatnonzero(good))


def _valid(kind: Any, columns: Mapping[str, Array]) -> Array:
    """Rows whose counts are in range; the package holds a few empty ones."""
    good = np.ones(len(columns["latency_us"]), dtype=bool)
    for column in kind.columns:
        if column.kind == "count" and column.name in columns:
            good &= columns[column.name] >= column.minimum
    return good


def read_parquet(path: Path) -> dict[str, Array]:
    """Columns of a parquet file as arrays. Raises MissingExtraError, InputError."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError:
        raise MissingExtraError("pyarrow", "silicon", "reading measured silicon tables") from None
    try:
        table = read_table(path)
    except (ArrowException, OSError) as error:
        raise InputError("not a readable parquet file", where=str(path), seen=str(error)[:120]) from None
    return {name: np.asarray(table[name].to_pylist()) for name in table.column_names}


def _named(values: Array, names: Mapping[str, str]) -> Array:
    unique, inverse = np.unique(values.astype(str), return_inverse=True)
    return np.array([names.get(str(u), "") for u in unique], dtype=object).astype(str)[inverse]


def _gemm(raw: Mapping[str, Array]) -> tuple[str, dict[str, Any]]:
    pair = _named(raw["gemm_dtype"], _FORMATS)
    columns = {name: raw[name].astype(float) for name in ("m", "n", "k")}
    return "gemm", {**columns, **_pair(pair), "batch": np.ones(len(pair))}


def _pair(pair: Array) -> dict[str, Array]:
    act = np.array([p.partition("+")[0] for p in pair], dtype=str)
    weight = np.array([p.rpartition("+")[2] for p in pair], dtype=str)
    return {"dtype_act": act, "dtype_weight": weight}


def _attention(raw: Mapping[str, Array]) -> dict[str, Any]:
    heads, kv = raw["num_heads"].astype(float), raw["num_key_value_heads"].astype(float)
    window = raw["window_size"].astype(float) if "window_size" in raw else np.zeros(len(heads))
    return {
        "batch": raw["batch_size"].astype(float),
        "n_heads": heads,
        "n_kv_heads": np.where(kv > 0, kv, heads),
        "head_dim": raw["head_dim"].astype(float),
        "window": window,
        "dtype": _named(raw["attn_dtype"], {"bfloat16": "bf16", "float16": "fp16"}),
        "kv_dtype": _named(raw["kv_cache_dtype"], _FORMATS),
    }


def _prefill(raw: Mapping[str, Array]) -> tuple[str, dict[str, Any]]:
    return "attention_prefill", {
        **_attention(raw),
        "seq_len": raw["isl"].astype(float),
        "prefix": raw["step"].astype(float),
    }


def _decode(raw: Mapping[str, Array]) -> tuple[str, dict[str, Any]]:
    return "attention_decode", {**_attention(raw), "context_len": raw["step"].astype(float)}


def _moe(raw: Mapping[str, Array]) -> tuple[str, dict[str, Any]]:
    names = {"num_tokens": "num_tokens", "hidden_size": "hidden", "inter_size": "inter", "topk": "topk",
             "num_experts": "num_experts", "moe_tp_size": "moe_tp", "moe_ep_size": "moe_ep"}  # fmt: skip
    columns: dict[str, Any] = {ours: raw[theirs].astype(float) for theirs, ours in names.items()}
    pair = _named(raw["moe_dtype"], _FORMATS)
    return "moe", {**columns, **_pair(pair), "distribution": raw["distribution"].astype(str)}


def _nccl(raw: Mapping[str, Array]) -> tuple[str, dict[str, Any]]:
    ops = np.array([_OPS.get(str(o), str(o)) for o in raw["op_name"]], dtype=str)
    width = np.where(raw["nccl_dtype"].astype(str) == "half", 2.0, 1.0)
    size = raw["message_size"].astype(float) * width
    return "collective", {"op": ops, "n_gpus": raw["num_gpus"].astype(float), "bytes": size, **_site(len(ops), "nccl")}


def _custom(raw: Mapping[str, Array]) -> tuple[str, dict[str, Any]]:
    n = len(raw["latency"])
    size = raw["message_size"].astype(float) * 2.0
    ranks = raw["num_gpus"].astype(float)
    return "collective", {"op": np.full(n, "all_reduce"), "n_gpus": ranks, "bytes": size, **_site(n, "custom-ar")}


def _site(n: int, backend: str) -> dict[str, Array]:
    return {"topology": np.full(n, "single-node-nvswitch"), "backend": np.full(n, backend)}


_FILES = {
    "gemm": _gemm,
    "context_attention": _prefill,
    "generation_attention": _decode,
    "moe": _moe,
    "nccl": _nccl,
    "custom_allreduce": _custom,
}
"""Stem of a parquet file -> its converter to (family, columns)."""
