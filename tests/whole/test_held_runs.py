"""`mech run --release`: a run that its alarm holds says so, and goes on when somebody lets it."""

import re

import pytest

from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.signals.lock_rows import lock_rows
from mech_pipeline.signals.locking import NEVER, Lock, Rule
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support.command_line import mech
from tests.support.docs_commands import inline_commands
from tests.support.tiny import write_project

pytestmark = [pytest.mark.slow, pytest.mark.process]
RUN, FILE = "tiny.baseline.s0", "experiments/tiny.yaml"
QUIET = {"ledger": {}, "influence": {}, "gradients": [], "detectors": []}


def test_a_held_run_is_shown_and_released(tmp_path):
    scored = {"events": ["baseline"], "negatives": ["control"], "explore_seeds": [5], "claim": 0.9}
    arms = {"baseline": {"seeds": [0, 5]}, "control": {"seeds": [5, 6, 7], "data": {"plain": 1.0, "tiled": 0.0}}}
    event = {"mechanism": "induction_copy_advantage", "threshold": 9.0}
    signals = {"measure": ["elapsed_step"], "on_alarm": {"hold": True, "zoom": 1}}
    write_project(tmp_path, **QUIET, arms=arms, formation=[event], signals=signals | scored)
    rule = Rule("elapsed_step", "level", 1, {0.05: NEVER, 0.9: 10.0}, 0.5)
    lock = Lock({"elapsed_step": rule}, "elapsed_step", 0.9, (5,), "explored")
    write(Store(tmp_path / "store"), [Block(Cell("signal_locks", "tiny"), lock_rows(lock), "planted")], "1")

    said = flat(mech(tmp_path, "run", FILE).stdout)
    assert f"ALARM in {RUN} at step 12: elapsed_step (level) above 10" in said
    assert steps(tmp_path) == [0, 3, 6, 7, 8, 9, 10, 11, 12]
    assert "held at step 12 by the alarm of elapsed_step" in flat(mech(tmp_path, "status", FILE).stdout)
    wrong = mech(tmp_path, "run", FILE, "--release", "tiny.baseline.s1", check=False)
    assert "is not of this experiment" in flat(wrong.stdout + wrong.stderr)

    (command,) = [each for each in inline_commands("docs/signals.md", "mech") if "--release" in each]
    words = command.replace("FILE", FILE).replace("RUN", RUN).split()[1:]
    assert f"{RUN}: released, it goes on from step 12" in flat(mech(tmp_path, *words).stdout)
    assert steps(tmp_path) == [0, 3, 6, 7, 8, 9, 10, 11, 12, 18, 24]
    status = query(tmp_path / "store", "select run, status from runs").rows()
    assert {run for run, stands in status if stands == "complete"} == {RUN}, "the others are held"


def flat(text):
    return re.sub(r"\s+", " ", text)


def steps(home):
    found = query(home / "store", f"select step from checkpoints where run = '{RUN}' order by step")
    return found["step"].to_list()
