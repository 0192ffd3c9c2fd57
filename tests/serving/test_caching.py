"""Prefix caches as an option: tiers by size and rate, hits of traces and of talks, what makes no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hwsim
from hwsim.cli.main import run as command_line
from hwsim.errors import HwsimError
from hwsim.serving.caching import with_prefix_cache
from tests.serving.helpers import replica

COMMON: dict[str, Any] = {"efficiency": "datasheet", "prompt": 600, "output": 40, "lengths": "fixed"}
TALK = {"closed_loop": "users=4,turns=6,think=0,history=1", **COMMON}


def test_sizes_become_tiers() -> None:
    spec = replica(kv_blocks=1000, kv_bytes_per_token=1e5)
    cached = with_prefix_cache({"prefix_cache": "share=0.25,block=64,host=64MB,host_rate=1GB/s,disk=640MB"}, spec)
    assert cached.kv_blocks == 750
    assert cached.prefix_block_tokens == 64
    assert [(t.name, t.blocks) for t in cached.prefix_tiers] == [("hbm", 62), ("host", 10), ("disk", 100)]
    assert [t.tokens_per_s for t in cached.prefix_tiers] == pytest.approx([float("inf"), 1e4, 6e4])
    assert with_prefix_cache({}, spec) is spec


def shared_prompts(path: Path) -> Path:
    rows = [
        {"timestamp": 4000 * i, "input_length": 1024, "output_length": 4, "hash_ids": [i % 2, 100 + i]}
        for i in range(20)
    ]  # two first blocks of 512 tokens, each asked for ten times; every second block is new
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.mark.parametrize("policy", ["vllm", "vllm_v1", "sarathi", "orca"])
def test_hits_of_a_trace_are_counted_and_save_their_prefill(tmp_path: Path, policy: str) -> None:
    trace = shared_prompts(tmp_path / "mooncake.jsonl")
    options = {"trace": trace, "policy": policy, "efficiency": "datasheet"}
    plain, cached = (
        hwsim.simulate("llama-3.1-8b", "a100-sxm4-80gb", **options, **more).to_dict()["metrics"]
        for more in ({}, {"prefix_cache": "share=0.2"})
    )
    assert cached["prefix_hit_share"]["value"] == 18 * 512 / (20 * 1024)
    assert "prefix_hit_share" not in plain
    assert cached["ttft_s_p50"]["value"] < plain["ttft_s_p50"]["value"]


def test_talks_find_their_past_again(capsys: pytest.CaptureFixture[str]) -> None:
    cold, warm = (
        hwsim.simulate("llama-3.1-8b", "a100-sxm4-80gb", policy="vllm_v1", **TALK, **more).to_dict()["metrics"]
        for more in ({}, {"prefix_cache": "share=0.5,block=16"})
    )
    # turn k has 640 (k - 1) + 600 tokens, of which all whole blocks of the turn before are there
    prompts = [640 * turn + 600 for turn in range(6)]
    hits = sum((640 * turn + 600) // 16 * 16 for turn in range(5))
    assert warm["prefix_hit_share"]["value"] == pytest.approx(hits / sum(prompts), rel=1e-12)
    assert warm["ttft_s_mean"]["value"] < cold["ttft_s_mean"]["value"]
    line = ["simulate", "llama-3.1-8b", "--hw", "a100", "--prefix-cache", "share=0.5", "--requests", "5", "-q"]
    assert command_line(line) == 2
    assert "prefix" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cache", "words"),
    [("share=1.5", "between 0 and 1"), ("shar=0.5", "share"), ("host=1", "at least a block"), ("block=0", "a token")],
)
def test_caches_that_make_no_sense_are_named(cache: str, words: str) -> None:
    with pytest.raises(HwsimError) as caught:
        hwsim.simulate("llama-3.1-8b", "a100-sxm4-80gb", prefix_cache=cache, **TALK)
    assert words in caught.value.render()
