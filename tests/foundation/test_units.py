"""Quantities: exact factors, round trips, and errors that show the fix."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import UnitError
from hwsim.units import gib, parse, si


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("2039 GB/s", "bytes_per_s", 2.039e12),
        ("80 GiB", "bytes", 80 * 2**30),
        ("80 GB", "bytes", 80e9),
        ("312 TFLOP/s", "flop_per_s", 312e12),
        ("624 TOP/s", "flop_per_s", 624e12),
        ("200 Gbit/s", "bytes_per_s", 25e9),
        ("25 us", "time", 25e-6),
        ("1.5 ms", "time", 1.5e-3),
        ("1410 MHz", "frequency", 1.41e9),
        ("4 pJ/bit", "energy_per_byte", 32e-12),
        ("1 pJ/MAC", "energy_per_flop", 0.5e-12),
        ("3.60 USD/h", "usd_per_s", 1e-3),
        ("0.36 USD/kWh", "usd_per_j", 1e-7),
        ("7 nm", "length", 7e-9),
    ],
)
def test_exact_factors(text: str, dimension: str, value: float) -> None:
    assert parse(text, dimension) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("2039", "e.g. '2039 GB/s'"),
        (2039, "write it with its unit"),
        (True, "write it with its unit"),
        ("2039 gb/s", "did you mean 'GB/s'"),
        ("400 W", "that is a unit of power"),
        ("nan GB/s", "e.g. '2039 GB/s'"),
        ("inf GB/s", "e.g. '2039 GB/s'"),
        ("1e400 GB/s", "e.g. '2039 GB/s'"),
        ("1e200 TB/s", "check the exponent"),
        ("-1e200 TB/s", "check the exponent"),
        ("1e-300 GB/s", "check the exponent"),
        ("", "e.g. '2039 GB/s'"),
        (None, "write it with its unit"),
        ([], "write it with its unit"),
    ],
)
def test_errors_show_the_fix(text: object, hint: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse(text, "bytes_per_s", where="a.yaml:3 memories[0].read")
    assert hint in caught.value.fix
    assert caught.value.where == "a.yaml:3 memories[0].read"


@given(st.floats(min_value=1e-11, max_value=1e17))
def test_si_shows_three_digits(value: float) -> None:
    text = si(value, "B/s")
    number, unit = text.split(" ")
    factor = {"P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12}
    assert float(number) * factor[unit.removesuffix("B/s")] == pytest.approx(value, rel=5.01e-3)
    assert float(number) < 1000 or value >= 9.995e17


@given(st.text(max_size=40))
def test_any_text_is_a_number_or_a_unit_error(text: str) -> None:
    with contextlib.suppress(UnitError):
        assert math.isfinite(parse(text, "time"))


def test_gib() -> None:
    assert gib(80 * 2**30) == "80.00 GiB"


def test_long_times_stay_in_seconds() -> None:
    assert [si(value, "s") for value in (998.0, 999.9, 4090.0, 1e6, 2.5e10)] == [
        "998 s", "1,000 s", "4,090 s", "1,000,000 s", "2.5e+10 s",
    ]  # fmt: skip
    assert si(4090.0, "B/s") == "4.09 kB/s"
