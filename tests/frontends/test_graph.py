"""Graphs: exact operations, topological order, scalars = arrays, laws over generated shapes."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import content
from hwsim.errors import InputError
from hwsim.frontends.attention import causal_pairs
from hwsim.frontends.catalog import load_model
from hwsim.frontends.ffn import expected_active
from hwsim.frontends.formats import Formats
from hwsim.frontends.model import Model
from hwsim.ir.workload import WorkloadGraph
from hwsim.schema.model import ModelSpec

NAMES = sorted(content.catalog("model"))
# One of each way to build a block
KINDS = [
    "llama-3-8b", "deepseek-v3", "deepseek-v2-lite", "gpt-oss-20b", "gemma-3-1b", "mixtral-8x7b", "qwen1.5-moe-a2.7b",
    "falcon-7b", "gpt-neox-20b", "olmo-2-7b", "bloom-7b1", "opt-125m", "gopher-280b", "dsmoe-1.3b+moe-128",
    "mmfreelm-370m", "bert-base", "vit-base-patch16-224", "dit-s-2", "whisper-tiny", "t5-small", "llama-4-scout",
]  # fmt: skip


def attention_flop(graph: WorkloadGraph) -> int:
    return sum(o.flop * o.repeat for o in graph.operators if o.kind.startswith("attention"))


def test_llama_prefill_operations_are_the_closed_form() -> None:
    model, batch, tokens = load_model("llama-2-7b"), 3, 100
    graph = model.graph("prefill", batch, tokens, 0)
    matrices = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    gemms = sum(o.flop * o.repeat for o in graph.operators if o.kind == "gemm")
    assert gemms == 2 * matrices * batch * tokens + 2 * 4096 * 32000 * batch
    assert attention_flop(graph) == 32 * batch * 4 * 4096 * (tokens * (tokens + 1) // 2)
    assert isinstance(graph.flop, int)


def test_llama_decode_bytes_are_weights_and_cache() -> None:
    model = load_model("llama-2-7b")
    graph = model.graph("decode", 2, 1, 999)
    weights = sum(o.moved_bytes("weight") * o.repeat for o in graph.operators)
    table = 32000 * 4096 * 2
    assert weights == model.weight_bytes() - table + 2 * 4096 * 2  # two rows of the embedding instead of all
    cache = sum(o.moved_bytes("kv_cache") * o.repeat for o in graph.operators)
    assert cache == 2 * (1000 + 1) * model.kv_bytes_per_token()


@given(st.integers(0, 60), st.integers(1, 40), st.integers(0, 50))
def test_pairs_equal_counting(past: int, q: int, window: int) -> None:
    counted = sum(min(p + 1, window or p + 1) for p in range(past, past + q))
    assert causal_pairs(past, q, window) == counted
    assert causal_pairs(np.array([float(past)]), np.array([float(q)]), window) == counted


@pytest.mark.parametrize("name", ["llama-3-8b", "gpt-oss-20b", "falcon-7b", "mistral-7b"])
def test_prefill_attention_is_the_sum_of_its_decodes(name: str) -> None:
    model = load_model(name)
    steps = range(120, 140)
    prefill = model.graph("prefill", 2, len(steps), steps[0])
    decodes = sum(attention_flop(model.graph("decode", 2, 1, past)) for past in steps)
    assert attention_flop(prefill) == decodes


def test_latent_attention_forms() -> None:
    """Absorbed decode attends to latents with one KV head; expanded prefill has full heads."""
    model = load_model("deepseek-v3")
    decode = model.graph("decode", 4, 1, 99).operator("block_moe.attention")
    shape = {k: decode.dims[k] for k in ("n_heads", "n_kv_heads", "head_dim", "v_head_dim", "context")}
    assert shape == {"n_heads": 128, "n_kv_heads": 1, "head_dim": 576, "v_head_dim": 512, "context": 100}
    assert decode.flop == 2 * (576 + 512) * 128 * 100 * 4
    prefill = model.graph("prefill", 4, 10, 90)
    assert prefill.operator("block_moe.attention").flop == 2 * (192 + 128) * 128 * 4 * (10 * 90 + 55)
    assert prefill.operator("block_moe.kv_b").dims["m"] == 4 * 100


def test_expected_active_experts_equal_enumeration() -> None:
    experts, top_k, tokens = 4, 2, 3
    picks = list(combinations(range(experts), top_k))
    distinct = [len(set().union(*map(set, chosen))) for chosen in product(picks, repeat=tokens)]
    assert expected_active(experts, top_k, tokens) == pytest.approx(sum(distinct) / len(distinct), rel=1e-14)
    assert expected_active(8, 2, 1) == 2 and expected_active(8, 8, 5) == 8


def test_moe_reads_the_experts_it_picks() -> None:
    model = load_model("mixtral-8x7b")
    one = model.graph("decode", 1, 1, 10).operator("block.moe")
    assert one.moved_bytes("weight") == one.weights[0].stored_bytes / 4
    many = model.graph("prefill", 8, 2048, 0).operator("block.moe")
    assert many.moved_bytes("weight") == pytest.approx(many.weights[0].stored_bytes, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_graphs_are_ordered_dags_without_loose_ends(name: str) -> None:
    model = load_model(name)
    for phase in model.phases:
        graph = model.graph(phase, 2, 1 if phase == "decode" else 8, 0 if phase == "forward" else 5)
        names = [o.name for o in graph.operators]
        assert len(set(names)) == len(names)
        position = {n: i for i, n in enumerate(names)}
        assert all(position[e.source] < position[e.target] for e in graph.edges)
        net = graph.to_networkx()
        assert list(net) == names and all(net.degree(n) for n in net)
        assert all(data["tensor"] is not None for _, _, data in net.edges(data=True))


@pytest.mark.parametrize("name", KINDS)
def test_arrays_equal_scalars(name: str) -> None:
    model = load_model(name)
    batches, tokens, pasts = np.array([1, 3, 64]), np.array([1, 17, 300]), np.array([0, 200, 5000])
    for phase in model.phases:
        q = np.ones(3, dtype=int) if phase == "decode" else tokens
        grid = model.graph(phase, batches, q, pasts, Formats.of("fp8"))
        for i in range(3):
            point = model.graph(phase, int(batches[i]), int(q[i]), int(pasts[i]), Formats.of("fp8"))
            _same(grid, point, i)


def _same(grid: WorkloadGraph, point: WorkloadGraph, index: int) -> None:
    for many, one in zip(grid.operators, point.operators, strict=True):
        assert many.name == one.name
        for left, right in ((many.flop, one.flop), *((many.dims[k], one.dims[k]) for k in one.dims)):
            assert np.broadcast_to(left, (3,))[index] == pytest.approx(right, rel=1e-12)
        for role in ("weight", "activation", "kv_cache", "state"):
            left = np.broadcast_to(many.moved_bytes(role), (3,))[index]  # type: ignore[arg-type]
            assert left == pytest.approx(one.moved_bytes(role), rel=1e-12)  # type: ignore[arg-type]


def test_grid_keeps_large_counts_from_wrapping() -> None:
    graph = load_model("llama-3.1-405b").graph("prefill", np.array([4096]), np.array([131072]), 0)
    assert float(graph.flop[0]) > 2**63


@pytest.mark.parametrize(
    ("phase", "batch", "q", "past"),
    [("decode", 1, 2, 0), ("forward", 1, 1, 0), ("prefill", 0, 1, 0), ("prefill", 1, -1, 0), ("prefill", 1, 1, -1),
     ("prefill", float("nan"), 1, 0), ("prefill", 1, float("inf"), 0), ("prefill", 1, np.array([1, 0]), 0),
     ("prefil", 1, 1, 0)],
)  # fmt: skip
def test_impossible_scenarios_are_input_errors(phase: str, batch: float, q: float, past: float) -> None:
    with pytest.raises(InputError):
        load_model("llama-2-7b").graph(phase, batch, q, past)


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    """Small decoders over every choice that a block has."""
    kv, groups, head_dim = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 8)) * 2
    fields = {
        "schema": "hwsim/model@1", "name": "generated", "title": "generated", "source": "made up",
        "tied": draw(st.booleans()), "layers": draw(st.integers(2, 7)),
        "hidden": draw(st.integers(1, 9)) * 8, "heads": kv * groups,
        "kv_heads": kv, "head_dim": head_dim, "ffn": draw(st.integers(1, 50)), "vocab": draw(st.integers(1, 99)),
        "activation": draw(st.sampled_from(["silu", "gelu", "relu", "relu2"])), "gated": draw(st.booleans()),
        "norm": draw(st.sampled_from(["rms_norm", "layer_norm", "layer_norm_nobias", "layer_norm_plain"])),
        "norm_placement": draw(st.sampled_from(["pre", "post", "sandwich", "branch", "parallel", "parallel_shared"])),
        "qk_norm": draw(st.sampled_from(["none", "head", "full", "head_layer_norm"])),
        "positions": draw(st.sampled_from(["rope", "learned", "alibi", "none"])), "max_positions": 64,
        "biases": draw(st.lists(st.sampled_from(["qkv", "out", "ffn", "head", "router", "experts"]), unique=True)),
    }  # fmt: skip
    if draw(st.booleans()):
        pattern = draw(st.lists(st.sampled_from(["full", "window"]), min_size=1, max_size=3))
        fields["window"] = {"size": draw(st.integers(1, 20)), "pattern": pattern}
    if draw(st.booleans()):
        experts = draw(st.integers(1, 9))
        fields["moe"] = {
            "experts": experts, "top_k": draw(st.integers(1, experts)), "expert_ffn": 6,
            "shared_ffn": draw(st.integers(0, 9)), "shared_gate": draw(st.booleans()),
            "first_dense_layers": draw(st.integers(0, 1)), "every_n_layers": draw(st.integers(1, 3)),
        }  # fmt: skip
    return ModelSpec.model_validate(fields)


@settings(max_examples=120)
@given(specs(), st.integers(1, 9), st.integers(1, 40), st.integers(0, 40))
def test_laws_of_generated_models(spec: ModelSpec, batch: int, q: int, past: int) -> None:
    """Work is linear in the batch, weights are the same in all scenarios, all layers are there, the cache adds up."""
    model = Model(spec)
    one, many = model.graph("prefill", 1, q, past), model.graph("prefill", batch, q, past)
    assert many.flop == batch * one.flop
    assert many.weight_bytes == one.weight_bytes == 2 * model.parameters
    assert 0 < model.active_parameters <= model.parameters
    assert sum(o.repeat for o in one.operators if o.kind == "attention_prefill") == spec.layers
    written = sum(_kv(o.outputs) * o.repeat for o in many.operators)
    assert written == batch * q * model.kv_bytes_per_token()
    decode = model.graph("decode", batch, 1, past)
    assert sum(_kv(o.inputs) * o.repeat for o in decode.operators) == model.kv_cache_bytes(batch, past + 1)


def _kv(tensors: tuple) -> float:  # type: ignore[type-arg]
    return sum(t.stored_bytes for t in tensors if t.role == "kv_cache")
