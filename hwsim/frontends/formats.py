"""Catalog of number formats, and which format each kind of tensor of a model is kept in.

A format stores `element_bits` an element plus a scale (and zero point) a group; group sizes and scale widths
follow the papers and specifications named beside each family. A weight-only format names the 16-bit dtype
that its elements are expanded to, because no multiplier takes them as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from hwsim.errors import InputError, unknown_name
from hwsim.ir.workload import NumberFormat

_SIXTEEN: Final = "bf16"


def _weight_only(name: str, element_bits: float, group: int, scale_bits: float, zero_bits: float = 0.0) -> NumberFormat:
    return NumberFormat(name, element_bits, _SIXTEEN, group, scale_bits, zero_bits, weight_only=True)


_CATALOG: Final[dict[str, NumberFormat]] = {
    f.name: f
    for f in (
        NumberFormat("fp64", 64, "fp64"),
        NumberFormat("fp32", 32, "fp32"),
        NumberFormat("tf32", 32, "tf32"),  # stored as fp32; the matrix unit drops mantissa bits
        NumberFormat("bf16", 16, "bf16"),
        NumberFormat("fp16", 16, "fp16"),
        NumberFormat("fp8", 8, "fp8"),  # per-tensor scale: nothing stored per element (Micikevicius et al. 2022)
        NumberFormat("fp8_e4m3", 8, "fp8"),
        NumberFormat("fp8_e5m2", 8, "fp8"),
        # 1x128 activation and 128x128 weight blocks with an fp32 scale (DeepSeek-V3 report, sec. 3.3)
        NumberFormat("fp8_blk", 8, "fp8", 128 * 128, 32),
        NumberFormat("fp8_blk_act", 8, "fp8", 128, 32),
        NumberFormat("mxfp8", 8, "fp8", 32, 8),  # OCP Microscaling v1.0: block 32, E8M0 scale
        NumberFormat("mxfp6", 6, "fp8", 32, 8),
        NumberFormat("mxfp4", 4, "fp4", 32, 8),
        NumberFormat("nvfp4", 4, "fp4", 16, 8),  # block 16, E4M3 scale (NVIDIA Blackwell)
        NumberFormat("fp4", 4, "fp4", 16, 8),
        NumberFormat("int8", 8, "int8"),  # one scale a channel or tensor: below 0.1 % of the bytes
        NumberFormat("int4", 4, "int4"),
        _weight_only("nf4", 4, 64, 8),  # QLoRA: block 64, scales double-quantized to 8 bits
        _weight_only("ternary", 2, 0, 0),  # 1.58 bits of information packed in 2 (BitNet b1.58)
        _weight_only("int1", 1, 0, 0),
    )
}
_ALIASES: Final = {
    "float32": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16", "float64": "fp64", "e4m3": "fp8_e4m3",
    "e5m2": "fp8_e5m2", "fp8-blk": "fp8_blk", "awq": "int4-g128", "gptq": "int4-g128", "b1.58": "ternary",
    "w4": "int4-g128",
    "float8": "fp8", "fp8_block": "fp8_blk", "i8": "int8", "i4": "int4",
}  # fmt: skip
# Whole deployments by their usual short name: (weights, activations, kv cache)
_SCHEMES: Final = {
    "w8a8": ("int8", "int8", None),
    "w4a16": ("int4-g128", "bf16", None),
    "w4a8": ("int4-g128", "int8", None),
    "w8a16": ("int8", "bf16", None),
    "w4a4": ("int4", "int4", None),
    "w16a16": ("bf16", "bf16", None),
    "fp8_w8a8": ("fp8", "fp8", None),
    "w8a8_fp8": ("fp8", "fp8", None),
}
_GROUPED: Final = re.compile(r"(int|fp)([2-8])-?_?g(\d{1,5})(-sym)?\Z")
# Group-quantized checkpoints (AWQ, GPTQ) keep a 16-bit scale a group, and a zero point as wide as the element
_GROUP_SCALE_BITS: Final = 16.0


def format_names() -> list[str]:
    """Every name that `get_format` knows; patterns are shown by one example each."""
    return sorted({*_CATALOG, *_ALIASES, "int4-g128", "int3-g64", "int4-g128-sym"})


def get_format(name: str, *, where: str = "") -> NumberFormat:
    """The format called `name`: a catalog name, an alias, or a pattern such as ``int3-g64`` (group 64).

    ``intN-gG`` stores a 16-bit scale and an N-bit zero point for each G elements; ``-sym`` drops the zero point.

    Raises
    ------
    UnknownNameError: no such format; the nearest names are proposed.
    InputError: a group of zero elements, or `name` is no string.
    """
    if not isinstance(name, str):
        raise InputError(
            "a number format is a name", where=where, seen=repr(name)[:80], fix="e.g. 'bf16' or 'int4-g128'"
        )
    key = name.strip().lower()
    key = _ALIASES.get(key, key)
    found = _CATALOG.get(key) or _grouped(key, where)
    if found is None:
        raise unknown_name("number format", name[:80], format_names(), where=where)
    return found


def _grouped(key: str, where: str) -> NumberFormat | None:
    match = _GROUPED.match(key)
    if match is None:
        return None
    kind, bits, group, symmetric = match[1], int(match[2]), int(match[3]), bool(match[4])
    if group < 1:
        raise InputError(
            "a quantization group holds at least one element", where=where, seen=key, fix="e.g. 'int4-g128'"
        )
    zero_bits = 0.0 if symmetric or kind == "fp" else float(bits)
    name = f"{kind}{bits}-g{group}" + ("-sym" if symmetric else "")
    return _weight_only(name, bits, group, _GROUP_SCALE_BITS, zero_bits)


def compute_dtype(weights: NumberFormat, activations: NumberFormat) -> str:
    """The dtype whose peak a multiply of two formats uses: that of the wider operand.

    Assumption: the narrower operand is expanded to the wider one before the multiply (weight-only kernels do so).
    A weight-only format is never wider than what it expands to; two kinds of 8 bits (int8 x fp8) meet in 16 bits.
    """
    if weights.weight_only and activations.weight_only:
        return weights.compute
    if weights.weight_only:
        return activations.compute
    if activations.weight_only:
        return weights.compute
    if weights.element_bits != activations.element_bits:
        return max(weights, activations, key=lambda f: f.element_bits).compute
    if weights.compute == activations.compute or weights.element_bits >= 16:
        return weights.compute
    return _SIXTEEN


@dataclass(frozen=True, slots=True)
class Formats:
    """Formats by role. `wide` holds what quantization leaves alone.

    Attributes
    ----------
    weights: matrices of the blocks.
    activations: inputs of the blocks' matrix multiplies.
    kv_cache: keys and values (or MLA latents) kept between steps.
    wide: embeddings, output head, norms, biases, router, residual stream. Checkpoints made by AWQ, GPTQ and FP8 tools
        keep these in 16 bits.
    """

    weights: NumberFormat
    activations: NumberFormat
    kv_cache: NumberFormat
    wide: NumberFormat

    @classmethod
    def of(
        cls, weights: str = "bf16", activations: str | None = None, kv_cache: str | None = None, wide: str | None = None
    ) -> Formats:
        """Formats from names; `weights` may be a scheme such as ``w8a8``.

        Defaults: activations follow the weights where the weights compute in their own format and in 16 bits
        or more, 8-bit or 4-bit floats (as servers quantize activations on the fly for those); a 16-bit format for
        weight-only formats and plain ``int8``/``int4``. The KV cache is as wide as `wide`, which is the weights'
        format at 16 bits or more and else bf16.

        Raises
        ------
        UnknownNameError: a name is not known.
        """
        scheme = _SCHEMES.get(str(weights).strip().lower())
        if scheme is not None:
            weights, activations, kv_cache = scheme[0], activations or scheme[1], kv_cache or scheme[2]
        stored = get_format(weights, where="weights")
        base = stored if stored.element_bits >= 16 else _CATALOG[_SIXTEEN]
        if activations is not None:
            chosen = get_format(activations, where="activations")
            base = chosen if chosen.element_bits >= 16 > stored.element_bits else base
        else:
            chosen = _default_activations(stored, base)
        kept = get_format(wide, where="wide") if wide else base
        cache = get_format(kv_cache, where="kv_cache") if kv_cache else kept
        return cls(stored, chosen, cache, kept)


def _default_activations(weights: NumberFormat, base: NumberFormat) -> NumberFormat:
    if weights.weight_only or weights.compute.startswith("int"):
        return base
    return _CATALOG["fp8_blk_act"] if weights.name == "fp8_blk" else weights
