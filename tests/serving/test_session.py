"""`hwsim simulate` from options to document: tables from the cost model, interruption, bad options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hwsim
from hwsim.cli.main import run as command_line
from hwsim.errors import InputError
from hwsim.frontends.formats import Formats
from hwsim.report import serving as report
from hwsim.serving.arrivals import generate
from hwsim.serving.engine_time import Pricer, from_engine
from hwsim.serving.resolve import resolve
from hwsim.serving.session import parse_slo
from hwsim.serving.simulate import simulate, write_table
from hwsim.serving.spec import ClusterSpec
from tests.serving.helpers import replica

SERVE = ["simulate", "llama-3.1-8b", "--hw", "a100-sxm4-80gb", "--efficiency", "datasheet", "-q"]


def test_tables_are_exact_at_their_knots() -> None:
    model, platform, scenario, _ = resolve("llama-3.1-8b", "a100-sxm4-80gb", {"efficiency": "datasheet"})
    formats = Formats.of("bf16", None, None)
    tables = from_engine(model, platform, scenario, formats, max_batch=64, max_tokens=2048, max_context=8192)
    pricer = Pricer(model, platform, scenario, formats)
    for batch, context in ((1, tables.time.contexts.knots[3]), (17, tables.time.contexts.knots[-2])):
        attention, rest, _, overhead = pricer.split_s("decode", batch, 1, int(context) - 1)
        read = tables.time.decode_line(batch, int(batch * context))[0]
        assert read == pytest.approx(float(attention + rest + overhead), rel=1e-9)
    attention, rest, _, overhead = pricer.split_s("prefill", 1, 512, 0)
    assert tables.time.iteration_s(0, 0, [(512, 0)]) == pytest.approx(float(attention + rest + overhead), rel=5e-3)
    assert 0 <= tables.error_median < 0.01
    assert tables.error_median <= tables.error_max < 0.03


def test_document_table_csv_and_html_agree(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    requests = tmp_path / "requests.csv"
    arguments = [*SERVE, "--rate", "4", "--requests", "60", "--slo", "ttft=1s,tpot=50ms", "-f", "json"]
    assert command_line([*arguments, "--requests-csv", str(requests)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "hwsim/serving@1"
    assert document["counts"]["finished"] == 60
    assert len(requests.read_text().splitlines()) == 61
    assert document["metrics"]["ttft_s_p50"]["value"] > 0
    assert document["metrics"]["energy_j"]["value"] > 0
    text = report.table_text(document)
    assert "time to first token" in text
    assert report.csv_text(document).startswith("metric,value,low,high\nttft_s_mean,")
    assert "<h1>llama-3.1-8b" in report.page(document)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--policy", "vlm"], 2),
        (["--router", "robin"], 2),
        (["--slo", "ttft=1"], 2),
        (["--rate", "-1"], 2),
        (["--replicas", "0"], 2),
        (["--prefill-pool", "3", "--replicas", "2"], 2),
        (["--trace", "missing.csv"], 2),
        (["--kv-blocks", "2"], 3),
        (["--capacity", "--requests", "20", "--slo", "ttft=1us"], 3),
    ],
)
def test_bad_options_end_with_their_code(more: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line([*SERVE, *more]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error: " in captured.err


def test_service_level_needs_units() -> None:
    assert parse_slo("ttft=1s, tpot=50 ms").tpot_s == pytest.approx(0.05)
    with pytest.raises(InputError):
        parse_slo("latency=1s")


def test_interrupt_keeps_the_partial_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hwsim.serving import cluster as cluster_module

    original, seen = cluster_module.Cluster.on_finish, []

    def stop_at_fifty(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        seen.append(1)
        if len(seen) == 50:
            raise KeyboardInterrupt

    monkeypatch.setattr(cluster_module.Cluster, "on_finish", stop_at_fifty)
    with pytest.raises(KeyboardInterrupt) as caught:
        simulate(generate(5.0, 200, seed=1), ClusterSpec([replica()]))
    partial = caught.value.partial  # type: ignore[attr-defined]
    assert int(np.isfinite(partial.column("end_s")).sum()) == 50
    write_table(partial, tmp_path / "partial.csv")
    assert sum("finished" in line for line in (tmp_path / "partial.csv").read_text().splitlines()) >= 50


def test_interrupt_on_the_command_line_prints_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hwsim.serving import cluster as cluster_module

    original, seen = cluster_module.Cluster.on_finish, []

    def stop_at_thirty(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        seen.append(1)
        if len(seen) == 30:
            raise KeyboardInterrupt

    monkeypatch.setattr(cluster_module.Cluster, "on_finish", stop_at_thirty)
    table = tmp_path / "partial.csv"
    assert command_line([*SERVE, "--rate", "4", "--requests", "200", "--requests-csv", str(table), "-f", "json"]) == 130
    document = json.loads(capsys.readouterr().out)
    assert document["interrupted"]
    assert document["counts"]["finished"] == 30
    assert len(table.read_text().splitlines()) == 201


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_on_a_terminal_only(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hwsim.cli import progress

    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: terminal, raising=False)
    meter = progress.Meter()
    meter("1,024 of 2,048 requests have arrived")
    meter("1 request/s: 99 % within the service level")
    meter.close()
    written = capsys.readouterr()
    assert written.out == ""
    assert ("[############............]" in written.err) is terminal
    assert "99 % within" in written.err


def test_a_capacity_search_reports_the_run_at_the_rate_it_found() -> None:
    document = hwsim.simulate(
        "llama-3.2-1b", "a100-sxm4-80gb", efficiency="datasheet", capacity=True, slo="ttft=200ms,tpot=20ms",
        requests=60, prompt=300, output=20, capacity_tolerance=0.1,
    ).to_dict()  # fmt: skip
    rate = document["capacity"]["rate_per_s"]
    assert document["scenario"]["rate_per_s"] == rate > 1.0
    assert document["metrics"]["slo_attainment"]["value"] == document["capacity"]["attainment"]
    assert f"{rate:.3g}/s" in report.headline(document)
