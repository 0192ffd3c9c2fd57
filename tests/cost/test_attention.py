"""Attention kernel models: exact counts, monotone laws, scalar = array, structure of the kernels, measured accuracy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.cost.gpu import attention_decode, attention_prefill
from hwsim.cost.gpu.attention import choose_splits, design
from hwsim.cost.gpu.attention_prefill import causal_pairs, query_grid
from hwsim.cost.gpu.family import Columns
from tests.cost.gpus import A100, H100

PREFILL, DECODE = attention_prefill.FAMILY, attention_decode.FAMILY
GPUS = {"a100": A100, "h100": H100}
HEADS = {"n_heads": 32.0, "n_kv_heads": 8.0, "head_dim": 128.0, "window": 0.0}


def seconds(family, gpu="h100", kernel_class="bf16kv@engine", **columns):
    full = {**HEADS, "batch": 4.0, "prefix": 0.0, "dtype": "bf16", "kv_dtype": "bf16", **columns}
    return family.time(full, GPUS[gpu], kernel_class, family.start()).time_s


def brute_pairs(seq, prefix, window):
    return sum(min(prefix + i, window or 10**9) for i in range(1, seq + 1))


@given(seq=st.integers(1, 300), prefix=st.integers(0, 200), window=st.integers(0, 400))
def test_causal_pairs_are_exact(seq, prefix, window):
    assert causal_pairs(seq, prefix, window) == brute_pairs(seq, prefix, window)


def test_flop_of_a_known_call():
    # 2 sequences, 4 heads of 64, 3 tokens: 1 + 2 + 3 pairs, 4 d FLOP each
    columns = {"batch": 2, "n_heads": 4, "head_dim": 64, "seq_len": 3, "prefix": 0, "window": 0}
    assert attention_prefill.flop(columns) == 2 * 4 * 6 * 4 * 64


def test_compulsory_bytes_of_a_known_decode():
    columns = {**HEADS, "batch": 2, "context_len": 9, "kv_dtype": np.array(["fp8"])}
    # 10 visible tokens of 1 byte, one appended token read in 16 bit, Q read and O written in 16 bit
    expected = 2 * 128 * (2 * 8 * (10 * 1 + 2) + 4 * 32)
    assert attention_decode.traffic_bytes(columns) == expected


@pytest.mark.parametrize("gpu", GPUS)
@given(seq=st.integers(1, 4096), prefix=st.integers(0, 2000), window=st.sampled_from([0, 128, 1024]))
@settings(max_examples=60, deadline=None)
def test_tiles_cover_the_causal_work(gpu, seq, prefix, window):
    """Padded tile work is never below the exact pairs, and at most a tile a row block above."""
    columns: Columns = {**HEADS, "batch": 1.0, "window": float(window)}
    h = attention_prefill.heads(columns, "bf16kv@engine")
    kernel = design(GPUS[gpu].generation)
    grid = query_grid(h, np.asarray(float(seq)), np.asarray(float(prefix)), kernel, GPUS[gpu].sms)
    packed = 4.0 if kernel.packs_heads else 1.0
    rows = 128.0 / packed
    covered = grid.kv_sum * rows
    exact = causal_pairs(seq, prefix, window)
    assert covered >= exact * (1 - 1e-9)
    assert covered <= exact + grid.tiles * rows * (rows + 128.0) + rows * (prefix + seq + 256.0)


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("column", ["seq_len", "batch", "n_heads", "head_dim", "prefix"])
def test_prefill_never_falls_with_work(gpu, column):
    base = {"seq_len": 1024.0, "batch": 64.0, "n_heads": 64.0, "head_dim": 128.0, "prefix": 4096.0}
    grid = {**base, column: base[column] * np.arange(1, 9)}
    times = seconds(PREFILL, gpu, **grid)
    assert (np.diff(times) > 0).all()


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("column", ["context_len", "batch"])
def test_decode_grows_with_large_work(gpu, column):
    base = {"context_len": 8192.0, "batch": 64.0}
    times = seconds(DECODE, gpu, **{**base, column: base[column] * 2.0 ** np.arange(6)})
    assert (np.diff(times) > 0).all()


@pytest.mark.parametrize(("family", "size"), [(PREFILL, "seq_len"), (DECODE, "context_len")])
@given(
    batch=st.integers(1, 300), length=st.integers(1, 20000), kv=st.sampled_from([1, 2, 8]), d=st.sampled_from([64, 128])
)
@settings(max_examples=40, deadline=None)
def test_array_equals_scalar(family, size, batch, length, kv, d):
    columns = {"batch": float(batch), size: float(length), "n_kv_heads": float(kv), "head_dim": float(d)}
    alone = seconds(family, **columns)
    rows = {k: np.array([v, 2 * v]) for k, v in columns.items()}
    assert np.isclose(seconds(family, **rows)[0], alone, rtol=1e-12)


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize(("family", "size"), [(PREFILL, "seq_len"), (DECODE, "context_len")])
def test_engine_calls_stay_above_speed_of_light(gpu, family, size):
    """Cold data: no faster than exact FLOP at peak nor than the cache bytes at DRAM rate."""
    batch, length = (a.ravel() for a in np.meshgrid([1.0, 8.0, 64.0], [16.0, 512.0, 4096.0, 32768.0]))
    columns = {**HEADS, "batch": batch, size: length, "prefix": 0.0 * batch}
    time = seconds(family, gpu, **columns)
    assert (time >= family.flop(columns) / GPUS[gpu].peak("bf16")).all()
    tokens = length if family is DECODE else 0.0 * length
    assert (time >= batch * tokens * 2 * 8 * 128 * 2 / GPUS[gpu].dram_bytes_per_s).all()


def test_splits_fill_a_short_grid_and_leave_a_full_one():
    few, full = choose_splits(np.array([4.0, 120.0]), np.array([64.0, 64.0]), 132, 32)
    assert few > 16
    assert full == 1


def test_splits_never_exceed_tiles():
    assert choose_splits(np.array([1.0]), np.array([3.0]), 132, 128) <= 3


def test_packed_heads_make_short_prefill_cheaper():
    """Eight query heads of a KV head share a tile on Hopper; FlashAttention-2 pads each to 128 rows."""
    grouped = {"seq_len": 16.0, "batch": 256.0, "n_heads": 64.0}
    ratio = {
        g: seconds(PREFILL, g, **grouped, n_kv_heads=8.0) / seconds(PREFILL, g, **grouped, n_kv_heads=64.0)
        for g in GPUS
    }
    assert ratio["h100"] < 0.7 * ratio["a100"]


def test_window_caps_decode():
    inside = seconds(DECODE, context_len=100_000.0, window=1024.0, batch=256.0)
    assert inside < 0.1 * seconds(DECODE, context_len=100_000.0, window=0.0, batch=256.0)


def test_fp8_cache_halves_the_stream_of_long_decode():
    long = {"context_len": 65536.0, "batch": 64.0, "head_dim": 64.0}
    ratio = seconds(DECODE, kernel_class="fp8kv@engine", **long) / seconds(DECODE, **long)
    assert 0.45 < ratio < 0.75


def test_replayed_cache_is_faster_than_a_cold_one():
    small = {"context_len": 2048.0, "batch": 4.0}
    assert seconds(DECODE, kernel_class="bf16kv@graph", **small) < seconds(DECODE, **small)


@pytest.mark.parametrize("family", [PREFILL, DECODE])
def test_parameters_start_inside_their_bounds(family):
    for p in family.parameters:
        assert p.low < p.start < p.high, p.name
        assert p.meaning and p.unit


def test_latent_attention_reads_its_latent_once_and_has_its_own_kernel():
    """MLA: 128 heads share one cached latent of 576 elements, keys and values alike."""
    shape = {"n_heads": 128.0, "n_kv_heads": 1.0, "head_dim": 544.0, "context_len": 4096.0, "batch": 64.0}
    latent, separate = seconds(DECODE, **shape, kv_row_elements=576.0), seconds(DECODE, **shape)
    assert latent < separate - 64 * attention_decode.SEGMENT_US * 1e-6


def test_operator_columns_price_an_engine_step():
    """The adapters give the columns that the time functions take: cold cache, the new token not counted twice."""
    from hwsim.ir.platform import Platform
    from hwsim.ir.workload import NumberFormat, Operator, Tensor

    cache = Tensor("kv", (4, 100, 2 * 8 * 128), NumberFormat("fp8", 8, "fp8"), "kv_cache")
    dims = {"batch": 4, "context": 100, "n_heads": 32, "n_kv_heads": 8, "head_dim": 128, "v_head_dim": 128, "window": 0}
    operator = Operator("attention", "attention_decode", "attention", dims, 0, "bf16", (cache,))
    columns = attention_decode.columns_of(operator, Platform.__new__(Platform))
    assert columns["context_len"] == 99
    assert columns["kv_row_elements"] == 256
    assert list(attention_decode.kernel_class(columns)) == ["fp8kv@engine"]
    assert DECODE.time(columns, H100, "fp8kv@engine", DECODE.start()).time_s > 0
