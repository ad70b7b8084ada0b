"""The documentation that is made from code, and the parts of experiment files that it shows."""

import re
import runpy

import matplotlib.pyplot as plt
import pytest
import typer
import yaml

from mech_pipeline.commands.table import app
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.spec.model import PRESETS
from mech_pipeline.store.tables.documentation import tables_markdown
from tests.support.docs_commands import blocks, inline_commands
from tests.support.docs_names import missing
from tests.support.places import ROOT
from tests.support.rooms import SHOWN, rooms_markdown, rooms_of
from tests.support.tiny import TINY

DOCS = ROOT / "docs"
PAGES = [
    str(page.relative_to(ROOT))
    for page in sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "benchmarks" / "README.md"])
]
# What was: its names are those of its day.
CURRENT = [page for page in PAGES if page not in ("docs/log.md", "CHANGELOG.md")]


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
        if stage == "arms":
            continue  # what is said there is spread over runs; it was read, which is a test
        made = getattr(experiment if stage == "budget" else experiment.runs()[0], stage).model_dump()
        assert {name: made[name] for name in fields if name in made and not isinstance(fields[name], dict | list)} == {
            name: value for name, value in fields.items() if name in made and not isinstance(value, dict | list)
        }


def test_every_preset_is_in_the_table_of_the_page():
    page = (DOCS / "training.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in PRESETS)


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.stem)
def test_rooms_are_the_packages_in_their_own_words(page):
    assert rooms_of(page) == rooms_markdown(SHOWN[page]), "write them again: python -m tests.support.rooms"


def test_the_architecture_stays_one_page():
    assert len((DOCS / "architecture.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", CURRENT)
def test_every_file_and_name_on_a_page_is_there(page):
    assert missing(page) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, place = target.partition("#")
        linked = (ROOT / page).parent / name if name else ROOT / page
        assert linked.exists(), target
        assert not place or place in anchors(linked.read_text(encoding="utf-8")), target


def anchors(page):
    """The places of a Markdown page that a link can name: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", page, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_with_commands_has_a_test_that_runs_them():
    """Who runs them: test_command_line, test_front_door, test_deployment_files, test_sql_docs, test_exchange_docs."""
    run = {
        "README.md",
        "CONTRIBUTING.md",
        *(f"docs/{name}.md" for name in ("deployment", "exchange", "sql", "training")),
    }
    assert {page for page in PAGES if blocks(page, "bash")} == run


@pytest.mark.parametrize("page", CURRENT)
def test_every_command_inside_a_sentence_is_one_of_the_program(page):
    known = typer.main.get_command(app).commands
    for command in inline_commands(page, "mech"):
        name, *arguments = command.split()[1:]
        if not name.isupper() and name != "…":
            assert name in known, command
        for file in (word for word in arguments if word.startswith("experiments/")):
            assert (ROOT / file).is_file(), command


def test_the_pictures_of_concepts_can_be_drawn_again(tmp_path):
    script = runpy.run_path(str(DOCS / "images" / "make_concepts.py"))
    assert {f"concepts_{name}.png" for name in script["PICTURES"]} == {
        file.name for file in (DOCS / "images").glob("concepts_*.png")
    }
    page = (DOCS / "concepts.md").read_text(encoding="utf-8")
    for name, draw in script["PICTURES"].items():
        assert f"(images/concepts_{name}.png)" in page
        figure = draw()
        figure.savefig(tmp_path / f"{name}.png")
        plt.close(figure)
