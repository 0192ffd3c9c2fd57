"""HF import: each family gives its released parameter count; broken input gives an InputError that names the key."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import content
from hwsim.errors import InputError
from hwsim.frontends.catalog import load_model
from hwsim.frontends.hf import import_config, to_yaml
from hwsim.frontends.hf_families import FAMILIES
from hwsim.frontends.model import Model
from hwsim.schema.base import validate
from hwsim.schema.model import ModelSpec
from hwsim.schema.reader import parse
from tests.frontends.hf_configs import CONFIGS


def write(folder: Path, config: Any) -> Path:
    path = folder / "config.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", CONFIGS)
def test_each_family_gives_its_parameter_count(name: str, tmp_path: Path) -> None:
    config, parameters = CONFIGS[name]
    model = load_model(str(write(tmp_path, config)))
    assert model.parameters == parameters
    for phase in model.phases:
        assert model.graph(phase, 1, 1, 0).flop > 0


def test_every_family_is_tested() -> None:
    assert set(FAMILIES) - {c["model_type"] for c, _ in CONFIGS.values()} == {"RefinedWebModel", "kimi_k2", "mt5"}


@pytest.mark.parametrize(
    ("family", "name"),
    [("gpt_oss", "gpt-oss-20b"), ("gemma3", "gemma-3-1b"), ("gemma2", "gemma-2-9b"), ("falcon", "falcon-7b"),
    ("phi", "phi-2"),
     ("deepseek_v3", "deepseek-v3"), ("gpt_neox", "gpt-neox-20b"), ("whisper", "whisper-large-v3"),
     ("t5", "flan-t5-xxl")],
)  # fmt: skip
def test_import_and_catalog_give_the_same_work(family: str, name: str, tmp_path: Path) -> None:
    imported, shipped = load_model(str(write(tmp_path, CONFIGS[family][0]))), load_model(name)
    for phase in imported.phases:
        sizes = (2, 1, 9000) if phase == "decode" else (2, 300, 0)
        assert imported.graph(phase, *sizes).flop == shipped.graph(phase, *sizes).flop
    assert imported.kv_cache_bytes(1, 9000) == shipped.kv_cache_bytes(1, 9000)


@pytest.mark.parametrize("name", CONFIGS)
def test_yaml_reads_back_equal(name: str, tmp_path: Path) -> None:
    spec = import_config(write(tmp_path, CONFIGS[name][0]), name=f"my-{name}")
    text = to_yaml(spec)
    assert validate(ModelSpec, parse(text, tmp_path / "x.yaml")) == spec
    assert spec.imported_sha256 is not None and spec.imported_sha256 in text


def test_yaml_of_the_catalog_reads_back_equal(tmp_path: Path) -> None:
    for name in sorted(content.catalog("model")):
        spec = load_model(name).spec
        assert validate(ModelSpec, parse(to_yaml(spec), tmp_path / "x.yaml")) == spec


@pytest.mark.parametrize(
    ("stated", "expected"), [("org/My Model_7B/", "my-model_7b"), (None, "llamas"), ("config", "llamas")]
)
def test_name_comes_from_the_file_or_its_folder(stated: str | None, expected: str, tmp_path: Path) -> None:
    folder = tmp_path / "llamas"
    folder.mkdir()
    path = write(folder, CONFIGS["llama"][0] | {"_name_or_path": stated})
    assert import_config(path).name == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "lama"}, ["unknown model family", "llama"]),
        ({"model_type": None}, ["model_type", "known:"]),
        ({"hidden_size": -1}, ["hidden_size must be"]),
        ({"hidden_size": 0}, ["hidden_size must be"]),
        ({"hidden_size": 4096.0}, ["whole number"]),
        ({"hidden_size": True}, ["whole number"]),
        ({"hidden_size": "4096"}, ["whole number", "config.json hidden_size"]),
        ({"hidden_size": None, "hidden_sise": 4096}, ["missing key 'hidden_size'", "hidden_sise"]),
        ({"num_attention_heads": 33}, ["head_dim is absent"]),
        ({"num_key_value_heads": 5}, ["multiple of kv_heads"]),
        ({"hidden_act": "geglu"}, ["unknown hidden_act", "gelu"]),
        ({"num_hidden_layers": 10**9}, ["num_hidden_layers must be"]),
        ({"tie_word_embeddings": "no"}, ["true or false"]),
    ],
)
def test_bad_values_are_named(change: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        import_config(write(tmp_path, CONFIGS["llama"][0] | change))
    text = str(caught.value)
    assert all(word in text for word in words) and "config.json" in text and len(text.splitlines()) <= 6


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", '{"model_type": "llama", "hidden_size": NaN}', '{"a": Infinity}', '{"a": 1, "a": 2}',
    "[" * 100_000,
     '{"a": ' * 50_000, '{"model_type": "llama", "hidden_size": ' + "9" * 5000 + "}", "\ud83d"],
)  # fmt: skip
def test_malformed_files_are_input_errors(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError):
        import_config(path)


def test_size_cap(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too large"):
        import_config(write(tmp_path, " " * 4_000_001))


@pytest.mark.parametrize(
    ("family", "change", "word"),
    [
        ("opt", {"word_embed_proj_dim": 512}, "projected"),
        ("qwen3_moe", {"mlp_only_layers": [5]}, "first ones"),
        ("whisper", {"encoder_ffn_dim": 1024}, "ffn widths differ"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("gpt_oss", {"layer_types": ["full_attention"]}, "each layer"),
        ("gpt_oss", {"layer_types": ["linear"] * 24}, "kind of layer"),
        ("gemma3", {"text_config": None}, "text_config"),
        ("mixtral", {"num_experts_per_tok": 9}, "top_k exceeds experts"),
        ("vit", {"patch_size": 500}, "patch"),
        ("deepseek_v3", {"moe_layer_freq": 2}, "moe_layer_freq"),
    ],
)
def test_shapes_that_cannot_be_described_are_refused(
    family: str, change: dict[str, Any], word: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=word):
        import_config(write(tmp_path, CONFIGS[family][0] | change))


def test_falcon_variants(tmp_path: Path) -> None:
    base = CONFIGS["falcon"][0]
    heads = {}
    for label, change in {
        "mqa": {},
        "mha": {"multi_query": False},
        "gqa": {"new_decoder_architecture": True, "num_attention_heads": 64, "hidden_size": 4096, "num_kv_heads": 8},
        "sequential": {"parallel_attn": False},
    }.items():
        spec = import_config(write(tmp_path, base | change))
        heads[label] = (spec.kv_heads, spec.norm_placement)
    assert heads == {
        "mqa": (1, "parallel_shared"),
        "mha": (71, "parallel_shared"),
        "gqa": (8, "parallel"),
        "sequential": (1, "pre"),
    }


def test_qwen_window_starts_after_its_first_layers(tmp_path: Path) -> None:
    config = CONFIGS["qwen2"][0] | {"use_sliding_window": True, "sliding_window": 100, "max_window_layers": 21}
    model = Model(import_config(write(tmp_path, config)))
    assert model.kv_cache_bytes(1, 1000) == 2 * 4 * 128 * 2 * (21 * 1000 + 7 * 100)


HOSTILE = st.sampled_from(
    [
        None,
        True,
        -1,
        0,
        1,
        3,
        2**31,
        10**30,
        1.5,
        -0.0,
        1e308,
        "",
        "x",
        "silu",
        [],
        [1],
        {},
        {"a": 1},
        "\x00",
        "é",
        10_000_000,
    ]
)


@settings(max_examples=400)
@given(st.sampled_from(sorted(CONFIGS)), st.data())
def test_mutated_configs_give_an_input_error_or_finite_counts(name: str, data: st.DataObject) -> None:
    """Drop, rename, retype, negate, blow up: never a traceback, never a number that is not one (T15)."""
    config = copy.deepcopy(CONFIGS[name][0])
    target = config.get("text_config", config)
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from(sorted(target)))
        action = data.draw(st.sampled_from(["drop", "rename", "replace", "negate"]))
        value = target.pop(key)
        if action == "rename":
            target[key + "s"] = value
        elif action == "replace":
            target[key] = data.draw(HOSTILE)
        elif action == "negate":
            target[key] = -value if isinstance(value, int | float) else [value]
        if not target:
            break
    _import_is_safe(config)


def _import_is_safe(config: dict[str, Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        try:
            model = Model(import_config(write(Path(folder), config)))
        except InputError as error:
            assert error.what and error.where
            return
    assert 0 < model.active_parameters <= model.parameters
    assert math.isfinite(model.parameters) and math.isfinite(float(model.kv_cache_bytes(1, 100)))
    assert model.graph(model.phases[-1], 1, 1, 1).flop > 0


@settings(max_examples=150)
@given(st.sampled_from(sorted(CONFIGS)), st.data())
def test_truncated_configs_are_input_errors(name: str, data: st.DataObject) -> None:
    import tempfile

    text = json.dumps(CONFIGS[name][0])
    with tempfile.TemporaryDirectory() as folder, pytest.raises(InputError):
        import_config(write(Path(folder), text[: data.draw(st.integers(0, len(text) - 1))]))


@settings(max_examples=250)
@given(st.sampled_from(sorted(content.catalog("model"))), st.data())
def test_mutated_model_files_give_an_input_error_or_finite_counts(name: str, data: st.DataObject) -> None:
    """The same for the project's own model files (T14): lines dropped, doubled, or their value replaced."""
    path = content.catalog("model")[name]
    lines = path.read_text(encoding="utf-8").splitlines()
    index = data.draw(st.integers(0, len(lines) - 1))
    key = lines[index].split(":")[0]
    junk = data.draw(
        st.sampled_from(
            ["", "-1", "0", "1e400", ".nan", "yes", "[1", "{}", "[]", "99999999999999999999", "x: y", "3.5"]
        )
    )
    options = {
        "drop": [],
        "double": [lines[index]] * 2,
        "value": [f"{key}: {junk}"],
        "rename": [lines[index].replace(key, key + "x", 1)],
    }
    lines[index : index + 1] = options[data.draw(st.sampled_from(sorted(options)))]
    try:
        model = Model(validate(ModelSpec, parse("\n".join(lines), path)))
    except InputError as error:
        assert error.what and path.name in error.where
        return
    assert 0 < model.active_parameters <= model.parameters


@pytest.mark.long
@settings(max_examples=10_000)
@given(st.sampled_from(sorted(CONFIGS)), st.data())
def test_ten_thousand_mutated_configs(name: str, data: st.DataObject) -> None:
    """T15 at full size: about two minutes."""
    test_mutated_configs_give_an_input_error_or_finite_counts.hypothesis.inner_test(name, data)  # type: ignore[attr-defined]


@pytest.mark.long
@settings(max_examples=10_000)
@given(st.sampled_from(sorted(content.catalog("model"))), st.data())
def test_ten_thousand_mutated_model_files(name: str, data: st.DataObject) -> None:
    """T14 at full size: about two minutes."""
    test_mutated_model_files_give_an_input_error_or_finite_counts.hypothesis.inner_test(name, data)  # type: ignore[attr-defined]
