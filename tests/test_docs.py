"""The documentation that is made from code, and the parts of experiment files that it shows."""

import pytest
import yaml

from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.spec.model import PRESETS
from mech_pipeline.store.tables.documentation import tables_markdown
from tests.support.docs_commands import blocks
from tests.support.places import ROOT
from tests.support.tiny import TINY

DOCS = ROOT / "docs"


def test_the_documented_tables_are_the_tables_of_the_store():
    written = (DOCS / "tables.md").read_text(encoding="utf-8")
    assert written == tables_markdown(), (
        "write docs/tables.md again: mech_pipeline/store/tables/documentation.py says how"
    )


@pytest.mark.parametrize("block", blocks("docs/training.md", "yaml"), ids=lambda block: f"line {block.line}")
def test_every_part_of_an_experiment_file_is_valid(block):
    parts = yaml.safe_load(block.text)
    experiment = parse_experiment(TINY | {"training": {"steps": 1400, "batch": 32}} | parts)
    for stage, fields in parts.items():
        made = getattr(experiment.runs()[0], stage).model_dump()
        assert {name: made[name] for name in fields if name in made and not isinstance(fields[name], dict | list)} == {
            name: value for name, value in fields.items() if name in made and not isinstance(value, dict | list)
        }


def test_every_preset_is_in_the_table_of_the_page():
    page = (DOCS / "training.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in PRESETS)
