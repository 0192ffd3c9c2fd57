"""Parameter count and dtypes of a checkpoint, from safetensors headers alone; weights are never read.

Layout of a file: 8 bytes (little endian) of header length, a JSON header of {name: {dtype, shape, data_offsets}}, data.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hwsim.errors import InputError
from hwsim.frontends.hf_reader import parse_json, read_json

MAX_HEADER_BYTES: Final = 100_000_000
_MAX_RANK: Final = 16
_BITS: Final = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I64": 64, "I32": 32,
    "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the headers say: elements in all, by dtype, and stored bytes. `missing` shards were not there to read."""

    elements: int
    by_dtype: Mapping[str, int]
    stored_bytes: int
    files: int
    missing: tuple[str, ...] = field(default=())

    def difference(self, parameters: int) -> float:
        """Relative difference of this count to a model's."""
        return self.elements / parameters - 1.0


def read_checkpoint(path: Path) -> Checkpoint:
    """Headers of a ``.safetensors`` file, or of every shard that a ``.safetensors.index.json`` names and that exists.

    Raises
    ------
    InputError: truncated, a header above 100 MB, offsets outside the data, overlapping or of the wrong size, an unknown
        dtype, a tensor of the index that its shard lacks, or a shard name that leaves the folder.
    """
    if path.suffix == ".json":
        return _from_index(path)
    return _sum([_header(path)], ())


def _sum(headers: list[dict[str, tuple[str, int, int]]], missing: tuple[str, ...]) -> Checkpoint:
    counts: Counter[str] = Counter()
    stored = 0
    for header in headers:
        for dtype, elements, size in header.values():
            counts[dtype] += elements
            stored += size
    return Checkpoint(sum(counts.values()), dict(sorted(counts.items())), stored, len(headers), missing)


def _from_index(path: Path) -> Checkpoint:
    table = read_json(path, MAX_HEADER_BYTES).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise InputError(
            "the index has no weight_map", where=f"{path} weight_map", fix="is this model.safetensors.index.json?"
        )
    shards: dict[str, list[str]] = {}
    for tensor, shard in table.items():
        if not isinstance(shard, str) or not shard or "/" in shard or "\\" in shard or shard.startswith("."):
            where = f"{path} weight_map.{tensor[:80]}"
            raise InputError("a shard must be a file name beside the index", where=where, seen=repr(shard)[:80])
        shards.setdefault(shard, []).append(tensor)
    present = [shard for shard in shards if (path.parent / shard).is_file()]
    headers = [_header(path.parent / shard) for shard in present]
    for shard, header in zip(present, headers, strict=True):
        lost = next((tensor for tensor in shards[shard] if tensor not in header), None)
        if lost is not None:
            raise InputError(
                "the shard lacks a tensor that the index names", where=str(path.parent / shard), seen=lost[:80]
            )
    return _sum(headers, tuple(sorted(set(shards) - set(present))))


def _header(path: Path) -> dict[str, tuple[str, int, int]]:
    """Tensor name -> (dtype, elements, stored bytes) of one file, every offset checked."""
    raw, data_bytes = _raw_header(path)
    entries = parse_json(raw, str(path))
    entries.pop("__metadata__", None)
    spans = []
    out: dict[str, tuple[str, int, int]] = {}
    for name, entry in entries.items():
        dtype, elements, begin, end = _entry(entry, f"{path} {name[:80]}", data_bytes)
        spans.append((begin, end, name))
        out[name] = (dtype, elements, end - begin)
    spans.sort()
    for (_, end, name), (begin, _, other) in zip(spans, spans[1:], strict=False):
        if begin < end:
            raise InputError("tensors overlap", where=str(path), seen=f"{name[:60]} and {other[:60]}")
    return out


def _raw_header(path: Path) -> tuple[bytes, int]:
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            prefix = handle.read(8)
            if len(prefix) < 8:
                raise InputError("file is too short for safetensors", where=str(path), seen=f"{size} bytes")
            (length,) = struct.unpack("<Q", prefix)
            if length > min(MAX_HEADER_BYTES, size - 8):
                seen = f"header of {length} bytes in a file of {size}"
                raise InputError(
                    "impossible header length", where=str(path), seen=seen, fix="at most 100 MB; is it cut off?"
                )
            return handle.read(length), size - 8 - length
    except OSError as error:
        raise InputError("cannot read the file", where=str(path), seen=error.strerror or str(error)) from None


def _entry(entry: Any, where: str, data_bytes: int) -> tuple[str, int, int, int]:
    """(dtype, elements, begin, end) of one tensor. Raises InputError."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str) or entry["dtype"] not in _BITS:
        raise InputError("unknown tensor entry or dtype", where=where, seen=repr(entry)[:80])
    shape, offsets = _whole(entry.get("shape"), _MAX_RANK), _whole(entry.get("data_offsets"), 2)
    if shape is None or offsets is None or len(offsets) != 2:
        raise InputError("shape and data_offsets must be lists of whole numbers", where=where, seen=repr(entry)[:80])
    elements = 1
    for extent in shape:
        elements *= extent
    begin, end = offsets
    if not begin <= end <= data_bytes:
        raise InputError("tensor lies outside the file", where=where, seen=f"{begin}..{end} of {data_bytes} bytes")
    if (end - begin) * 8 != elements * _BITS[entry["dtype"]]:
        raise InputError("tensor size does not match its shape", where=where, seen=repr(entry)[:80])
    return entry["dtype"], elements, begin, end


def _whole(values: Any, most: int) -> list[int] | None:
    """The list, if it holds at most `most` whole numbers that fit 63 bits."""
    if not isinstance(values, list) or len(values) > most:
        return None
    return values if all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**63 for v in values) else None
