"""A user's mapper file that crashes, exits or answers nonsense: bad input with its line, a law broken in the kit."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim.errors import InputError
from hwsim.frontends.raw import raw_graph
from hwsim.mapping import check_mapper, load_mapper
from hwsim.mapping.gemms import works_of
from hwsim.mapping.plan import map_workload
from hwsim.schema.loader import load_accelerator

HEAD = 'class M:\n    name, summary = "m", "s"\n\n    def map(self, machine, gemm, objective, budget_s):\n'
BODIES = {
    'raise ValueError("boom")': "ValueError: boom",
    "import sys; sys.exit(0)": "SystemExit: 0",
    "return 7": "7",
    "return None": "None",
}


def written(folder: Path, body: str) -> str:
    file = folder / "mine.py"
    file.write_text(f"{HEAD}        {body}\n\n\nMAPPER = M()\n")
    return str(file)


@pytest.mark.parametrize(("body", "seen"), BODIES.items())
def test_what_fails_in_the_file_is_said_with_its_place(tmp_path: Path, body: str, seen: str) -> None:
    with pytest.raises(InputError) as caught:
        works = works_of(raw_graph("gemm:8x8x8"))
        map_workload(works, load_accelerator("g3-256")[0], mapper=written(tmp_path, body), use_cache=False)
    assert caught.value.seen == seen
    assert "mine.py" in caught.value.where
    assert caught.value.where.endswith(":5") or body.startswith("return")


def test_a_file_that_exits_when_loaded_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(InputError, match="fails to load"):
        load_mapper(str(file))


def test_the_kit_still_sees_a_crash(tmp_path: Path) -> None:
    report = check_mapper(load_mapper(written(tmp_path, 'raise ValueError("boom")')).mapper)
    assert "answers        BROKEN" in str(report)
    assert "boom" in str(report)
