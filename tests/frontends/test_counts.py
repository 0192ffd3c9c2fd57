"""Parameters and cache sizes: exact published counts, catalog-wide tolerance, conservation between views (LAW-3)."""

from __future__ import annotations

import math

import pytest

from hwsim import content
from hwsim.frontends.catalog import load_model
from hwsim.frontends.formats import Formats

NAMES = sorted(content.catalog("model"))

# Counts of released checkpoints that can be looked up on their model pages
EXACT = {
    "llama-7b": 6_738_415_616,
    "llama-2-7b": 6_738_415_616,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-405b": 405_853_388_800,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "qwen2.5-72b": 72_706_203_648,
    "qwen2.5-0.5b": 494_032_768,
    "qwen3-8b": 8_190_735_360,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
    "deepseek-v3": 671_026_419_200,
    "deepseek-v2-lite": 15_706_484_224,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
    "gpt2-xl": 1_557_611_200,
    "opt-6.7b": 6_658_473_984,
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
    "vit-large-patch16-224": 304_326_632,
    "whisper-large-v3": 1_543_490_560,
    "flan-t5-xxl": 11_135_332_352,
    "falcon-7b": 6_921_720_704,
    "bloom-176b": 176_247_271_424,
    "phi-2": 2_779_683_840,
    "gemma-2b": 2_506_172_416,
    "gemma-2-9b": 9_241_705_984,
    "gemma-3-1b": 999_885_952,
    "gpt-j-6b": 6_050_882_784,
    "gpt-neox-20b": 20_554_567_680,
    "dit-xl-2": 675_129_632,
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_parameter_counts(name: str) -> None:
    assert load_model(name).parameters == EXACT[name]


@pytest.mark.parametrize("name", NAMES)
def test_catalog_counts_are_within_half_a_percent_of_what_is_published(name: str) -> None:
    """Or within the tolerance that the file states; its notes say why."""
    model = load_model(name)
    published = model.spec.parameters_published
    assert model.parameters > 0
    if published is None:
        assert model.spec.notes or model.name.startswith(("opt-175b", "gpt3-", "dit-")), "say why there is no count"
        return
    error = abs(model.parameters / published.value - 1)
    assert error <= published.tolerance <= 0.02
    if published.tolerance > 0.005:
        assert error > 0.005 and model.spec.notes, "no longer deviates: drop its tolerance"


@pytest.mark.parametrize(
    ("name", "value"),
    [("deepseek-v3", 70_272), ("qwen2.5-72b", 327_680), ("llama-3.1-405b", 516_096), ("llama-2-7b", 524_288),
     ("gpt-oss-20b", 49_152), ("falcon-7b", 8_192), ("bert-base", 0), ("mmfreelm-2.7b", 0)],
)  # fmt: skip
def test_kv_bytes_per_token_at_16_bit(name: str, value: int) -> None:
    assert load_model(name).kv_bytes_per_token("bf16") == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mixtral-8x7b", 46_702_792_704 - 32 * (8 - 2) * 3 * 4096 * 14336),
        ("qwen3-30b-a3b", 30_532_122_624 - 48 * (128 - 8) * 3 * 2048 * 768),
        ("llama-2-7b", 6_738_415_616),
    ],
)
def test_active_parameters(name: str, value: int) -> None:
    assert load_model(name).active_parameters == value


def test_deepseek_v3_active_parameters_agree_with_the_report() -> None:
    """The report prints 37B activated, embedding counted once (arXiv 2412.19437, abstract)."""
    model = load_model("deepseek-v3")
    assert model.active_parameters - model.spec.vocab * model.spec.hidden == pytest.approx(37e9, rel=0.02)


def test_windows_cap_the_cache() -> None:
    model = load_model("gemma-3-27b")  # 62 layers, of which the 6th, 12th ... attend to everything
    full, per_layer = 62 // 6, 2 * 16 * 128 * 2
    assert model.kv_cache_bytes(1, 512, "bf16") == 62 * 512 * per_layer
    assert model.kv_cache_bytes(3, 100_000, "bf16") == 3 * per_layer * (full * 100_000 + (62 - full) * 1024)


def test_cross_attention_and_recurrent_state_are_cached() -> None:
    whisper = load_model("whisper-large-v3")
    assert whisper.kv_cache_bytes(1, 10) - whisper.kv_cache_bytes(1, 0) == 10 * whisper.kv_bytes_per_token()
    assert whisper.kv_cache_bytes(1, 0) == 1500 * whisper.kv_bytes_per_token()
    assert load_model("mmfreelm-1.3b").kv_cache_bytes(2, 99_999) == 2 * 24 * 2048 * 2


@pytest.mark.parametrize("name", NAMES)
def test_both_phases_hold_the_same_weights(name: str) -> None:
    """Absorbed and expanded latent attention, and each other pair of phases, store the same matrices."""
    model = load_model(name)
    totals = {}
    for phase in model.phases:
        graph = model.graph(phase, 2, 1, 7)
        totals[phase] = graph.weight_bytes
    if model.spec.encoder is None:
        assert len(set(totals.values())) == 1
    assert totals[model.phases[0]] == 2 * model.parameters == model.weight_bytes("bf16")


@pytest.mark.parametrize("name", [n for n in NAMES if load_model(n).spec.arch in ("decoder", "encoder-decoder")])
def test_prefill_writes_what_the_cache_holds_and_decode_reads_it(name: str) -> None:
    """Elements are compared, so that a window layer may write more than it keeps."""
    model = load_model(name)
    length = 1 if model.prompt_is_source else 24
    prefill = model.graph("prefill", 2, 24, 0)
    written = sum(_cached(o.outputs) * o.repeat for o in prefill.operators if "cross" not in o.name)
    assert written == 2 * length * model.kv_bytes_per_token()
    decode = model.graph("decode", 2, 1, 23, source_tokens=24)
    read = sum(_cached(o.inputs) * o.repeat for o in decode.operators)
    assert read == model.kv_cache_bytes(2, 24, source_tokens=24)
    assert sum(_cached(o.outputs) * o.repeat for o in decode.operators) == 2 * model.kv_bytes_per_token()


def _cached(tensors: tuple) -> float:  # type: ignore[type-arg]
    return sum(t.stored_bytes for t in tensors if t.role == "kv_cache")


def test_quantized_checkpoint_size() -> None:
    """Matrices at 4.15625 bits, the rest at 16: the size of the published AWQ file, 3.89 GB."""
    model = load_model("llama-2-7b")
    matrices = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    expected = matrices * 4.15625 / 8 + (model.parameters - matrices) * 2
    assert math.isclose(model.weight_bytes("int4-g128"), expected, rel_tol=1e-15)
    assert model.weight_bytes(Formats.of("int4-g128")) == pytest.approx(3.89e9, rel=1e-3)


@pytest.mark.parametrize(
    ("alias", "name"),
    [("llama7b", "llama-7b"), ("meta-llama/Llama-2-7b-hf", "llama-2-7b"), ("dit-xl/2", "dit-xl-2"),
     ("llama2-70b", "llama-2-70b"), ("Qwen/Qwen3-235B-A22B-FP8", "qwen3-235b-a22b"),
     ("bert_large", "bert-large"), ("gpt2_large", "gpt2-large")],
)  # fmt: skip
def test_aliases_resolve(alias: str, name: str) -> None:
    assert load_model(alias).name == name


def test_file_names_and_aliases_are_unique() -> None:
    seen: dict[str, str] = {}
    for name in NAMES:
        spec = load_model(name).spec
        assert spec.name == name
        for spelling in (name, *spec.aliases):
            assert seen.setdefault(content.normalize(spelling), name) == name
