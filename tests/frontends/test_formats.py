"""Number formats: stored bits, patterns, compute dtypes, defaults by role."""

from __future__ import annotations

import pytest

from hwsim.errors import InputError, UnknownNameError
from hwsim.frontends.formats import Formats, compute_dtype, format_names, get_format


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("fp32", 32), ("bf16", 16), ("fp8", 8), ("fp8_e5m2", 8), ("int8", 8), ("int4", 4),
        ("mxfp4", 4 + 8 / 32), ("mxfp8", 8 + 8 / 32), ("nvfp4", 4 + 8 / 16), ("fp8_blk", 8 + 32 / 16384),
        ("int4-g128", 4 + 20 / 128), ("int3-g64", 3 + 19 / 64), ("int2-g32", 2 + 18 / 32),
        ("int4-g128-sym", 4 + 16 / 128),
        ("nf4", 4 + 8 / 64), ("ternary", 2),
    ],
)  # fmt: skip
def test_stored_bits_are_element_plus_share_of_the_group(name: str, bits: float) -> None:
    assert get_format(name).bits == pytest.approx(bits, rel=1e-15)


def test_every_listed_name_resolves_and_aliases_agree() -> None:
    for name in format_names():
        assert get_format(name).bits > 0
    assert get_format("AWQ") == get_format("int4-g128")
    assert get_format("bfloat16") is get_format("bf16")


@pytest.mark.parametrize(("name", "hint"), [("bf61", "bf16"), ("nvfp5", "nvfp4"), ("int4-g127x", "int4-g128")])
def test_unknown_format_proposes_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError, match=hint):
        get_format(name)


@pytest.mark.parametrize("bad", ["int4-g0", "", None, 7])
def test_impossible_formats_are_input_errors(bad: object) -> None:
    with pytest.raises(InputError):
        get_format(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weights", "activations", "dtype"),
    [
        ("bf16", "bf16", "bf16"), ("int4-g128", "bf16", "bf16"), ("int4-g128", "fp16", "fp16"),
        ("int8", "bf16", "bf16"), ("int8", "int8", "int8"), ("fp8", "fp8", "fp8"), ("fp8", "bf16", "bf16"),
        ("nvfp4", "nvfp4", "fp4"), ("mxfp4", "fp8", "fp8"), ("ternary", "int8", "int8"), ("int8", "fp8", "bf16"),
        ("fp32", "bf16", "fp32"),
        ("int4-g128", "int8", "int8"),
    ],
)  # fmt: skip
def test_compute_dtype_is_that_of_the_wider_operand(weights: str, activations: str, dtype: str) -> None:
    assert compute_dtype(get_format(weights), get_format(activations)) == dtype


def test_defaults_by_role() -> None:
    awq = Formats.of("int4-g128")
    assert [f.name for f in (awq.weights, awq.activations, awq.kv_cache, awq.wide)] == ["int4-g128", *["bf16"] * 3]
    fp8 = Formats.of("fp8", kv_cache="fp8")
    assert (fp8.activations.name, fp8.kv_cache.name, fp8.wide.name) == ("fp8", "fp8", "bf16")
    half = Formats.of("fp16")
    assert half.kv_cache == half.wide == half.activations == half.weights
    assert Formats.of("w8a8").activations.name == "int8"
    assert Formats.of("w4a16", activations="fp16").wide.name == "fp16"
    assert Formats.of("fp32").wide.name == "fp32"
