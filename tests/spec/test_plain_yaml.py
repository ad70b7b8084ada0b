"""Experiment files: a key that stands twice is named with both lines; whatever else is wrong is one line."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mech_pipeline.errors import MechError
from mech_pipeline.spec.experiment import load_experiment
from mech_pipeline.spec.plain_yaml import read_yaml
from tests.support.tiny import MINIMAL, TINY


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  'c': 2\n", "line 4: key 'c' is there twice, in lines 3 and 4"),
        ("1: a\n0x1: b", "key 1 is there twice, in lines 1 and 2"),
        ("a: {b: 1,\n  b: 2}", "key 'b' is there twice, in lines 1 and 2"),
        ("<<: {a: 1}\n<<: {a: 2}", "key '<<' is there twice"),
        ("? [a]\n: 1", "line 1: a key must be a word"),
        ("a: " + "[" * 5000, "more than 100 levels"),
        ("d: 2026-99-99", "month must be in 1..12"),
        ("n: " + "9" * 5000, "Exceeds the limit"),
        ("a: !!timestamp x", ""),
        ("a: !!python/object:os.system x", "line 1: could not determine a constructor"),
        ("a: 1\n---\nb: 2", "line 2: .* single document"),
        ("a: \x00", "unacceptable character"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(MechError, match=f"x.yaml is not YAML: .*{message}") as caught:
        read_yaml(tmp_path / "x.yaml")
    assert "\n" not in str(caught.value)


def test_merged_keys_may_be_overridden_and_a_byte_order_mark_is_no_key(tmp_path):
    (tmp_path / "x.yaml").write_text("\ufeffa: &a {b: 1, c: 1}\nd:\n  <<: *a\n  b: 2\n")
    assert read_yaml(tmp_path / "x.yaml") == {"a": {"b": 1, "c": 1}, "d": {"b": 2, "c": 1}}


LINES = yaml.safe_dump(TINY, sort_keys=False).splitlines()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, len(LINES) - 1))
def test_every_field_that_stands_twice_is_named(tmp_path_factory, place):
    """A line that is copied gives its key twice, or is no YAML; items of a list are no keys."""
    path = tmp_path_factory.mktemp("twice") / "x.yaml"
    path.write_text("\n".join([*LINES[: place + 1], *LINES[place:]]) + "\n")
    if LINES[place].lstrip().startswith("- "):
        return
    with pytest.raises(MechError, match="is there twice|is not YAML"):
        load_experiment(path)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40) | st.binary(max_size=40))
def test_any_content_is_read_or_refused_in_a_line(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "x.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogatepass"))
    with pytest.raises(MechError):
        load_experiment(path)


def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))

    def refuse(*arguments, **more):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(path), "read_text", refuse)
    with pytest.raises(MechError, match=r"x\.yaml may not be read"):
        load_experiment(path)
