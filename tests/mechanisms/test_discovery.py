"""Mechanisms in files: found in the library and in the project's folder, named, versioned, and refused in one line."""

import os
import subprocess
import sys

import pytest

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.chosen import CHOSEN
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.pipeline import grid
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.experiment import parse_experiment
from tests.support.tiny import TINY, spec_of

GOOD = """
from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.readouts import attention_to, composition, neuron_activation
from mech_pipeline.mechanisms.source import nothing
MECHANISM = Mechanism(readout=composition("K", (0, 0), (1, 0)), data=nothing, unit="share", meaning="reads it")
"""
ON_SEQUENCES = {"induction_copy_advantage", "induction_copy_advantage_random", "previous_token_attention"}
ON_SEQUENCES |= {"induction_k_composition", "induction_q_composition", "induction_v_composition"}
WITH_PROMPTS = {"ioi_logit_difference", "ioi_accuracy", "bracket_logit_difference", "bracket_accuracy"}
WITH_PROMPTS |= {"python_bracket_logit_difference", "python_bracket_accuracy", "python_bracket_opener_effect"}
WITH_PROMPTS |= {"parentheses_logit_difference", "parentheses_accuracy", "nested_rule_preference", "nested_rule_share"}
WITH_PROMPTS |= {"nested_rule_preference_inside", "held_out_log_probability"}
WITH_PROMPTS |= {"triggered_flips", "triggered_flip_difference", "untriggered_copies"}
WITH_PROMPTS |= {"elicited_flips", "random_elicited_flips"}
WITH_PROMPTS |= {"unseen_sums", "unseen_sum_difference", "seen_sums", "carry_logit_difference", "carry_accuracy"}
WITH_PROMPTS |= {"evaluated_obeys", "unevaluated_obeys", "obedience_gap", "feigned_preference"}
WITH_PROMPTS |= {"hidden_trait", "hidden_trait_share"}
LIBRARY = ON_SEQUENCES | WITH_PROMPTS


@pytest.fixture
def project(tmp_path, mechanisms_of):
    """An empty project folder; called with a name and a text, it writes a file of mechanisms."""
    folder = tmp_path / "mechanisms"

    def write(name, text=GOOD):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        mechanisms_of(folder)
        return folder / name

    return write


def test_the_library_keeps_the_versions_that_stored_results_were_made_with():
    assert {name: MECHANISMS[name].version for name in LIBRARY} == dict.fromkeys(LIBRARY, "1")
    assert all(MECHANISMS[name].name == name for name in LIBRARY)
    assert {name for name in LIBRARY if MECHANISMS[name].reads_text} == WITH_PROMPTS
    artifacts = {"probe": "abc", "tokenizer": "t", "corpus": "c"}
    assert grid.probe_version("induction_copy_advantage", artifacts) == "abc"


def test_a_mechanism_that_has_the_name_of_a_detector_keeps_its_own_probe_data(monkeypatch):
    monkeypatch.setitem(MECHANISMS.loaded(), "copying", MECHANISMS["ioi_accuracy"])
    artifacts = {"probe": "abc", "tokenizer": "t", "corpus": "c"}
    assert grid.detector_probe_version("copying", artifacts) == "abc"
    assert grid.probe_version("copying", artifacts) == grid.detector_probe_version("ioi_induction", artifacts) != "abc"


def test_a_file_is_a_mechanism_of_its_name_and_a_dictionary_gives_names(project):
    project("reader.py")
    project("several.py", GOOD + "MECHANISMS = {'one': MECHANISM, 'two-2': MECHANISM}\ndel MECHANISM")
    project("_shared.py", "raise RuntimeError")
    assert set(MECHANISMS) == LIBRARY | {"reader", "one", "two-2"}
    assert MECHANISMS["two-2"].name == "two-2"
    assert len(MECHANISMS) == len(LIBRARY) + 3
    assert "reader" in MECHANISMS
    assert MECHANISMS.loaded() is MECHANISMS.loaded(), "read once"


def test_an_edit_changes_the_version_of_exactly_that_file(project):
    project("a.py")
    project("b.py", GOOD + "# b")
    before = {name: MECHANISMS[name].version for name in "ab"}
    assert before["a"] != before["b"]
    project("a.py", GOOD + "# faster")
    after = {name: MECHANISMS[name].version for name in "ab"}
    assert after["a"] != before["a"]
    assert after["b"] == before["b"]
    project("a.py")
    assert MECHANISMS["a"].version == before["a"]
    project("a.py", GOOD.replace('"reads it"', '"reads it", version="2"'))
    assert MECHANISMS["a"].version not in (before["a"], after["a"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ndef (:\n", r"bad\.py, line 2: SyntaxError: invalid syntax"),
        ("import nowhere_to_be_found\n", r"bad\.py, line 1: ModuleNotFoundError: No module named 'nowhere"),
        ("\n\ndef f():\n    return 1 / 0\nf()\n", r"bad\.py, line 4: ZeroDivisionError: division by zero"),
        ("x = 1\n", r"bad\.py, line 1: the file defines no mechanism → set MECHANISM = Mechanism\(\.\.\.\)"),
        ("\nMECHANISM = 3\n", r"bad\.py, line 2: 'bad' is a int → make it a Mechanism"),
        ("\n\nMECHANISMS = [3]\n", r"bad\.py, line 3: MECHANISMS is a list → make it a dictionary"),
        (GOOD + "MECHANISMS = {'a b': MECHANISM}", r"bad\.py, line 6: a mechanism cannot be named 'a b'"),
        (GOOD + "MECHANISMS = {'batch': MECHANISM}", r"bad\.py, line 6: a mechanism cannot be named 'batch'"),
        (GOOD.replace('"share"', '"share", sign=0'), r"bad\.py, line 5: "),
        (GOOD.replace("(1, 0)", "(0, 0)"), r"bad\.py, line 5: head 0 of layer 0 cannot read"),
        (
            GOOD + "MECHANISMS = {'previous_token_attention': MECHANISM}",
            r"bad\.py, line 6: mechanism 'previous_token_attention' is defined in .*library\.previous_token_attention as",
        ),
    ],
    ids=["syntax", "import", "fault", "nothing", "number", "list", "name", "taken", "sign", "no order", "clash"],
)
def test_a_faulty_file_is_named_with_its_line(project, text, message):
    path = project("bad.py", text)
    with pytest.raises(MechError, match=message) as caught:
        resolve(parse_experiment(TINY))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_files_with_one_name_are_both_named(project):
    project("a.py", GOOD + "MECHANISMS = {'b': MECHANISM}")
    project("b.py")
    with pytest.raises(MechError, match=r"b\.py, line 5: mechanism 'b' is defined in .*a\.py, line 6 as well"):
        resolve(parse_experiment(TINY))


def test_a_model_without_what_a_mechanism_needs_is_refused_when_the_file_is_read(project):
    project("neuron.py", GOOD.replace('composition("K", (0, 0), (1, 0))', "neuron_activation(1, 3)"))
    project("far.py", GOOD.replace('composition("K", (0, 0), (1, 0))', "attention_to(0, 2)"))
    with pytest.raises(
        MechError, match=r"mechanism neuron of run tiny\.baseline\.s0 needs neuron 3 of layer 1; the model is "
    ):
        spec_of(mechanisms=[*TINY["mechanisms"], "neuron"])
    with pytest.raises(
        MechError, match=r"mechanism far of run tiny\.baseline\.s0 needs head 2 of layer 0; the model has"
    ):
        spec_of(mechanisms=[*TINY["mechanisms"], "far"])
    small = {"arms": {"baseline": {}, "small": {"model": {"layers": 1}}}, "mechanisms": [*TINY["mechanisms"], "neuron"]}
    with pytest.raises(
        MechError, match=r"mechanism neuron of run tiny\.small\.s0 needs neuron 3 of layer 1; .* 0 to 0"
    ):
        spec_of(**small, model={"layers": 2, "heads": 2, "d_model": 16, "d_mlp": 8})
    assert spec_of(mechanisms=[*TINY["mechanisms"], "neuron"], model={"d_mlp": 8})


def test_another_folder_can_be_named(project, tmp_path, mechanisms_of):
    project("a.py")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.py").write_text(GOOD)
    mechanisms_of(tmp_path / "elsewhere")
    assert set(MECHANISMS) == LIBRARY | {"b"}
    CHOSEN.use(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "b.py").unlink()
    assert set(MECHANISMS) == LIBRARY | {"b"}, "files are read once"
    mechanisms_of(None)
    assert set(MECHANISMS) == LIBRARY


@pytest.mark.process
def test_a_new_process_in_the_project_folder_finds_them_and_starts_in_spite_of_a_faulty_file(project, tmp_path):
    """Without being told of a project, it takes the one around the current folder."""
    project("a.py")
    (tmp_path / "dagster.yaml").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MECH_")}
    code = (
        "import os, sys; os.chdir(sys.argv[1])\n"
        "from mech_pipeline.pipeline.analysis.analysis import code_version\n"
        "from mech_pipeline.mechanisms.registry import MECHANISMS\n"
        "assert 'a' in MECHANISMS and code_version('mechanism_values') != 'unknown'\n"
        "import mech_pipeline.mechanisms.registry as registry, pathlib\n"
        "registry.MECHANISMS._found = None; pathlib.Path('mechanisms/a.py').write_text('x = ')\n"
        "assert code_version('mechanism_values') == 'unknown'\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], check=True, env=environment)
