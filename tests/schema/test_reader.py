"""The strict reader: YAML 1.2 values, positions, and every hostile input refused with a place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import InputError
from hwsim.schema.reader import MAX_BYTES, parse, read

FILE = Path("x.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 312e12", 312e12),
        ("a: 3.12e14", 3.12e14),
        ("a: no", "no"),
        ("a: 12:30", "12:30"),
        ("a: 2024-01-02", "2024-01-02"),
        ("a: true", True),
        ("a: ~", None),
        ("a:", None),
        ("a: 0x1F", 31),
        ("a: 0o17", 15),
        ("a: '5'", "5"),
        ("a: -7", -7),
        ("a: 1_000", 1000),
        ("a: [1, 2.5, x]", [1, 2.5, "x"]),
        ("a: {b: {c: 1}}", {"b": {"c": 1}}),
        ("a: |\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_values_follow_yaml_1_2(text: str, value: object) -> None:
    assert parse(text, FILE).data == {"a": value}


@pytest.mark.parametrize(
    ("text", "what", "where"),
    [
        ("a: 1\nb: 2\na: 3\n", "duplicate key 'a'", "x.yaml:3"),
        ("a: {b: 1, b: 2}", "duplicate key 'b'", "x.yaml:1 a"),
        ("a: .nan", "finite", "x.yaml:1"),
        ("a: .inf", "finite", "x.yaml:1"),
        ("a: 1e400", "overflows", "x.yaml:1"),
        ("a: " + "9" * 5000, "too long", "x.yaml:1"),
        ("a: !!python/object:os.system x", "tags", "x.yaml:1"),
        ("a: 1\n---\nb: 2\n", "more than one", "x.yaml"),
        ("a: [1, 2", "malformed", "x.yaml:"),
        ("a: &x 1\nb: *y", "unknown YAML alias", "x.yaml:2"),
        ("? [1, 2]\n: 3", "keys must be plain", "x.yaml:1"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "merge keys", "x.yaml:3"),
        ("[" * 5000, "nested too deeply", "x.yaml:1"),
        ("a: " + "[" * 65 + "]" * 65, "nested too deeply", "x.yaml:1"),
        ("\t- a", "malformed", "x.yaml"),
    ],
)
def test_hostile_input_is_named(text: str, what: str, where: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text, FILE)
    assert what in caught.value.what or what in caught.value.render()
    assert caught.value.where.startswith(where)


def test_alias_bombs_are_refused_before_they_grow() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    with pytest.raises(InputError, match="alias|expands"):
        parse("\n".join(lines), FILE)
    few = ["a0: &a0 [" + ", ".join(["x"] * 30) + "]"] + [
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 7)
    ]
    with pytest.raises(InputError, match="expands"):
        parse("\n".join(few), FILE)


def test_size_encoding_and_absence(tmp_path: Path) -> None:
    big = tmp_path / "big.yaml"
    big.write_text("a: " + "x" * MAX_BYTES)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: \xe9".encode("latin-1"))
    for path, what in (
        (big, "too large"),
        (latin, "UTF-8"),
        (tmp_path / "none.yaml", "cannot read"),
        (tmp_path, "cannot read"),
    ):
        with pytest.raises(InputError, match=what):
            read(path)


def test_positions_name_the_line() -> None:
    document = parse("a:\n  - b: 1\n    c: 2\n  - d: 3\n", FILE)
    assert document.where(("a", 0, "c")) == "x.yaml:3 a[0].c"
    assert document.where(("a", 1, "missing")) == "x.yaml:4 a[1].missing"


@given(st.text(max_size=200))
def test_any_text_gives_data_or_an_input_error(text: str) -> None:
    try:
        parse(text, FILE)
    except InputError as error:
        assert error.exit_code == 2


def test_both_parsers_give_the_same_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """libyaml and the pure Python parser agree on every shipped file and on its line numbers."""
    import sys

    from hwsim import content
    from hwsim.schema.reader import parse as parse_text

    files = (
        sorted((content.root() / "hardware").rglob("*.yaml"))[::6]
        + sorted((content.root() / "workloads").rglob("*.yaml"))[::15]
    )
    fast = [parse_text(f.read_text(encoding="utf-8"), f) for f in files]
    monkeypatch.setitem(sys.modules, "_ruamel_yaml", None)
    slow = [parse_text(f.read_text(encoding="utf-8"), f) for f in files]
    assert [d.data for d in fast] == [d.data for d in slow]
    assert [d.lines for d in fast] == [d.lines for d in slow]
