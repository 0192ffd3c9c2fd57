"""Policies and routers of the user: by path, class or instance; their faults are theirs, with the line; the kit."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hwsim
from hwsim.cli.main import run as command_line
from hwsim.errors import CheckFailedError, InputError, UnknownNameError
from hwsim.serving.conformance import check_policy, check_router
from hwsim.serving.guard import PluginFailedError
from hwsim.serving.policies import POLICIES, VLLM, Patient, Sarathi
from hwsim.serving.routers import ROUTERS
from hwsim.serving.simulate import simulate
from hwsim.serving.spec import ClusterSpec
from tests.serving.helpers import replica, run, trace_of

RECIPE = Path(__file__).parents[2] / "docs" / "recipes" / "policy.md"
SMALL = {"rate": 5.0, "requests": 30, "efficiency": "datasheet"}
TRACE = trace_of([(0.01 * i, 50 + 37 * i % 400, 5 + i % 30) for i in range(60)])
HEAD = """from hwsim.serving.policies import VLLM, Patient


class Mine(VLLM):
    def plan(self, replica):
        {}
"""
FAULTS = {
    'raise ValueError("boom")': ("answers", "ValueError: boom"),
    "import sys; sys.exit(0)": ("answers", "SystemExit: 0"),
    "return None": ("answers", "None"),
    "return [7], True": ("answers", "7"),
    "return [], False": ("ends", "1 requests here"),
    "return [], True": ("answers", "True"),
    "return [(replica.admit(), 0)], False": ("answers", "0 of request 0 (50 + 5 tokens, arrived 0 s)"),
    "replica.waiting.popleft(); return [], False": ("requests", "0 of 1 requests left"),
    "replica.admit(); return [], False": ("requests", "0 of 1 requests left"),
    "self.cap = 0; r = replica.admit(); return [(r, r.prefill)], False": ("cap", "1 of 0"),
}


def snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", RECIPE.read_text(), re.DOTALL)


def written(folder: Path, body: str, name: str = "mine.py") -> str:
    (folder / name).write_text(body)
    return str(folder / name)


def test_the_recipe_works_as_it_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, kit, router = snippets()
    written(tmp_path, policy + "\n\n" + router)
    monkeypatch.chdir(tmp_path)
    exec(compile(kit, "recipe", "exec"), {})
    check_router("./mine.py:ShortestQueue").raise_if_broken()
    assert command_line(["check", "./mine.py"]) == 0
    assert "mine.py:OneByOne keeps 8 laws, mine.py:ShortestQueue keeps 3 laws" in capsys.readouterr().out
    arguments = ["llama-3.1-8b", "--hw", "a100-sxm4-80gb", "--rate", "4", "--requests", "30", "--replicas", "2"]
    named = ["--policy", "./mine.py", "--router", "./mine.py:ShortestQueue", "-q", "-f", "json"]
    assert command_line(["simulate", *arguments, *named]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["counts"]["finished"] == 30
    assert document["scenario"]["policy"] == "mine.py:OneByOne"
    assert document["scenario"]["router"] == "mine.py:ShortestQueue"
    assert len(document["provenance"]["inputs"]["mine.py:OneByOne"]) == 64


def test_a_scenario_file_names_files_beside_it(tmp_path: Path) -> None:
    written(tmp_path, snippets()[0])
    scenario = written(
        tmp_path,
        "schema: hwsim/serving-scenario@1\nworkload: llama-3.1-8b\nhw: a100-sxm4-80gb\nrequests: 20\nrate: 4\n"
        "also: [{workload: qwen3-8b, share: 0.5, policy: 'mine.py:OneByOne'}]\n"
        "efficiency: datasheet\npolicy: mine.py\n",
        "run.yaml",
    )
    for _ in range(2):
        assert hwsim.simulate(scenario).to_dict()["scenario"]["policy"] == "mine.py:OneByOne"
    assert command_line(["check", scenario]) == 0


def test_class_and_instance_give_the_run_of_the_shipped_name() -> None:
    named = hwsim.simulate("llama-3.1-8b", "a100-sxm4-80gb", policy="sarathi", max_batch=9, **SMALL).to_dict()

    class Mine(Sarathi):
        pass

    for given in (Mine, Mine(cap=9)):
        cap = {} if isinstance(given, Mine) else {"max_batch": 9}
        mine = hwsim.simulate("llama-3.1-8b", "a100-sxm4-80gb", policy=given, **cap, **SMALL).to_dict()
        assert mine["metrics"] == named["metrics"]
        assert mine["scenario"]["policy"] == "Mine"
        json.dumps(mine)


def test_an_instance_is_copied_for_each_replica() -> None:
    @dataclass
    class Counting(VLLM):
        asked: int = 0

        def plan(self, replica: Any) -> Any:
            self.asked += 1
            return VLLM.plan(self, replica)

    mine = Counting()
    result = run(TRACE, replica(mine, options={}), 2)  # type: ignore[arg-type]
    asked = [one.policy.asked for one in result.cluster.everyone]
    assert mine.asked == 0
    assert min(asked) > 0
    assert np.array_equal(result.e2e_s, run(TRACE, replica(options={}), 2).e2e_s)


@pytest.mark.parametrize(("body", "told"), FAULTS.items())
def test_faults_are_those_of_the_file_with_their_line(tmp_path: Path, body: str, told: tuple[str, str]) -> None:
    mine = written(tmp_path, HEAD.format(body))
    with pytest.raises(PluginFailedError) as caught:
        run(TRACE, replica(mine, options={}))
    assert (caught.value.law, caught.value.seen) == told
    assert caught.value.where in (f"{mine}:5", f"{mine}:6")
    report = check_policy(mine)
    assert not report.passed
    assert report.law(told[0]).broken
    with pytest.raises(CheckFailedError, match=r"mine\.py:Mine breaks 1 of 8 laws"):
        report.raise_if_broken()


def test_memory_beyond_the_pool_is_refused(tmp_path: Path) -> None:
    greedy = (
        "chunks = []\n        while replica.waiting:\n            r = replica.admit(); chunks.append((r, r.prefill))"
    )
    mine = written(
        tmp_path,
        HEAD.format(
            greedy + "\n        return chunks or VLLM.plan(self, replica)[0], not chunks and replica.decodes > 0"
        ),
    )
    report = check_policy(mine)
    assert [law.name for law in report.laws if not law.holds] == ["memory"]


def test_a_policy_that_breaks_its_word_is_found() -> None:
    class Moody(Patient):
        """Looks at the number of decode iterations, though it says that it would not."""

        cap = 256

        def plan(self, replica: Any) -> Any:
            if replica.waiting and replica.passed % 3 == 0 and replica.fits(replica.waiting[0]):
                request = replica.admit()
                return [(request, request.prefill)], False
            replica.reserve_decode()
            return [], replica.decodes > 0

    report = check_policy(Moody)
    assert [law.name for law in report.laws if not law.holds] in (["jumps"], ["ends"], ["ends", "jumps"])

    class Dice(Patient):
        cap = 256
        stream = np.random.default_rng(0)

        def plan(self, replica: Any) -> Any:
            if (
                replica.waiting
                and replica.fits(replica.waiting[0])
                and not (replica.decodes and self.stream.random() < 0.5)
            ):
                request = replica.admit()
                return [(request, request.prefill)], False
            replica.reserve_decode()
            return [], replica.decodes > 0

    assert [law.name for law in check_policy(Dice).laws if not law.holds] == ["repeatable"]


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_shipped_policies_keep_the_laws_as_users_own_too(name: str) -> None:
    mine = type("Mine", (POLICIES[name],), {"__module__": "elsewhere", "__slots__": ()})
    check_policy(mine).raise_if_broken()


@pytest.mark.parametrize("name", sorted(ROUTERS))
def test_shipped_routers_keep_the_laws_as_users_own_too(name: str) -> None:
    mine = type("Mine", (ROUTERS[name],), {"__module__": "elsewhere", "__slots__": ()})
    check_router(mine).raise_if_broken()


def test_a_router_that_picks_a_stranger_is_told() -> None:
    class Stranger:
        static = False

        def pick(self, request: Any, replicas: Any) -> Any:
            return "me"

    with pytest.raises(PluginFailedError, match="pick answers one of `replicas`"):
        simulate(TRACE, ClusterSpec([replica()] * 2, Stranger))
    assert check_router(Stranger).law("answers").broken


def test_check_holds_every_class_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, _, router = snippets()
    file = written(
        tmp_path, policy + "\n\nclass Other(OneByOne):\n    def plan(self, replica):\n        return 7\n" + router
    )
    assert command_line(["check", file]) == 2
    assert "mine.py:Other breaks 1 of 8 laws" in capsys.readouterr().err
    assert command_line(["check", f"{file}:OneByOne"]) == 0
    assert command_line(["check", f"{file}:Nobody"]) == 2
    assert command_line(["check", str(tmp_path / "none.py")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_what_cannot_be_a_policy_is_refused(tmp_path: Path) -> None:
    two = written(tmp_path, snippets()[0] + "\n\nclass Other(OneByOne):\n    pass\n")
    bare = written(tmp_path, "class Bare:\n    def plan(self, replica):\n        return [], True\n", "bare.py")
    broken = written(tmp_path, "x = 1\ny = x / 0\n", "broken.py")
    cases = {two: "does not say which", f"{tmp_path}/no.py": "no such file", bare: "lacks members", broken: "to load"}
    for given, what in cases.items():
        with pytest.raises(InputError, match=what):
            check_policy(given)
    with pytest.raises(PluginFailedError) as caught:
        check_policy(broken)
    assert caught.value.where == f"{broken}:2"
    with pytest.raises(UnknownNameError, match="Other"):
        check_policy(f"{two}:Othr")
    with pytest.raises(UnknownNameError, match="vllm"):
        hwsim.simulate("llama-3.1-8b", "a100-sxm4-80gb", policy="vlm")
    with pytest.raises(InputError, match="a policy is a name, a path, or a class"):
        hwsim.simulate("llama-3.1-8b", "a100-sxm4-80gb", policy=7)
    with pytest.raises(InputError, match="takes no chunk"):
        hwsim.simulate("llama-3.1-8b", "a100-sxm4-80gb", policy=f"{two}:Other", chunk=7)
    with pytest.raises(InputError, match="for pipelined replicas has a method form"):
        hwsim.simulate("llama-3.1-8b", "a100-sxm4-80gb", policy=f"{two}:Other", pp=2, **SMALL)
