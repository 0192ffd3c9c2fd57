"""Safetensors headers: counts, dtypes, and refusal of what a header must not say."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.cli.main import run
from hwsim.errors import InputError
from hwsim.frontends.catalog import load_model
from hwsim.frontends.safetensors import read_checkpoint


def save(path: Path, header: Any, data: int, length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + bytes(data))
    return path


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


GOOD = {"__metadata__": {"format": "pt"}, "a": tensor("BF16", [4, 8], 0, 64), "b": tensor("F32", [3], 64, 76)}


def test_counts_by_dtype(tmp_path: Path) -> None:
    found = read_checkpoint(save(tmp_path / "m.safetensors", GOOD, 76))
    assert (found.elements, found.stored_bytes, found.files) == (35, 76, 1)
    assert found.by_dtype == {"BF16": 32, "F32": 3}
    assert found.difference(35) == 0.0 and found.difference(70) == -0.5


def test_index_sums_shards_and_names_missing_ones(tmp_path: Path) -> None:
    save(tmp_path / "one.safetensors", GOOD, 76)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}})
    )
    found = read_checkpoint(index)
    assert (found.elements, found.files, found.missing) == (35, 1, ("two.safetensors",))


def test_a_whole_checkpoint_agrees_with_its_model(tmp_path: Path) -> None:
    """A sparse file stands for GPT-2's weights: only headers are read, so no bytes need to be there."""
    model = load_model("gpt2")
    path = save(tmp_path / "gpt2.safetensors", {"w": tensor("F32", [model.parameters], 0, 4 * model.parameters)}, 0)
    with path.open("r+b") as handle:
        handle.truncate(path.stat().st_size + 4 * model.parameters)
    assert read_checkpoint(path).difference(model.parameters) == 0.0


def test_import_holds_the_shape_against_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100,
        "num_key_value_heads": 2, "intermediate_size": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
        "hidden_act": "silu", "max_position_embeddings": 512,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    # per layer: q, o 2 x 64 x 64; k, v 2 x 64 x 32; three matrices 64 x 128; two norms. Both ends 100 x 64; last norm.
    count = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64) + 2 * 100 * 64 + 64
    right = save(tmp_path / "right.safetensors", {"w": tensor("BF16", [count], 0, 2 * count)}, 2 * count)
    wrong = save(tmp_path / "wrong.safetensors", {"w": tensor("BF16", [count // 2], 0, 2 * (count // 2))}, 2 * count)
    ask = ["import", str(tmp_path / "config.json"), "--checkpoint"]
    assert run([*ask, str(right)]) == 0 and "as the shape says" in capsys.readouterr().err
    assert run([*ask, str(wrong)]) == 4
    shown = capsys.readouterr()
    assert shown.out == "" and f"{count // 2:,}" in shown.err and f"{count:,}" in shown.err


@pytest.mark.parametrize(
    "header",
    [
        {"a": tensor("BF16", [4, 8], 0, 63)},
        {"a": tensor("BF16", [4, 8], 20, 84)},
        {"a": tensor("BF16", [4, 8], 64, 0)},
        {"a": tensor("BF16", [-4, -8], 0, 64)},
        {"a": tensor("BF17", [4, 8], 0, 64)},
        {"a": tensor("BF16", [2**62] * 16, 0, 64)},
        {"a": {"dtype": "BF16"}},
        {"a": tensor("BF16", [4, 8], 0, 64), "b": tensor("BF16", [4, 8], 10, 74)},
        {"a": {"dtype": "BF16", "shape": [4.0, 8], "data_offsets": [0, 64]}},
        {"a": {"dtype": "BF16", "shape": [32], "data_offsets": [0, 32, 64]}},
        {"a": {"dtype": ["BF16"], "shape": [32], "data_offsets": [0, 64]}},
        b"{", b"[]", b"\xff\xfe", b"",
    ],
)  # fmt: skip
def test_impossible_headers_are_input_errors(header: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_checkpoint(save(tmp_path / "m.safetensors", header, 76))


@pytest.mark.parametrize("length", [2**63, 100_000_001, 10_000, 2**64 - 1])
def test_header_length_is_capped(length: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="impossible header length"):
        read_checkpoint(save(tmp_path / "m.safetensors", GOOD, 76, length))


@pytest.mark.parametrize("shard", ["../secret", "/etc/passwd", "", ".hidden", "a\\b", 3, None])
def test_index_may_not_leave_its_folder(shard: Any, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(InputError, match="beside the index"):
        read_checkpoint(index)


def test_index_and_shard_must_agree(tmp_path: Path) -> None:
    save(tmp_path / "one.safetensors", GOOD, 76)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"z": "one.safetensors"}}))
    with pytest.raises(InputError, match="lacks a tensor"):
        read_checkpoint(index)


@settings(max_examples=200)
@given(st.data())
def test_flipped_and_cut_bytes_never_escape(data: st.DataObject) -> None:
    """A damaged file is refused, or still describes tensors that lie inside it."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = save(Path(folder) / "m.safetensors", GOOD, 76)
        raw = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(0, len(raw) - 77))] = data.draw(st.integers(0, 255))
        path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
        try:
            found = read_checkpoint(path)
        except InputError:
            return
        assert 0 <= found.stored_bytes <= 76
