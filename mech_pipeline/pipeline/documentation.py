"""The table of stages in docs/architecture.md, written from `stages.py`.

python -m mech_pipeline.pipeline.documentation docs/architecture.md
"""

import sys
from pathlib import Path

from mech_pipeline.pipeline.stage import Stage
from mech_pipeline.pipeline.stages import STAGES

BEGIN, END = "<!-- stages: begin (python -m mech_pipeline.pipeline.documentation) -->", "<!-- stages: end -->"
_HEAD = ("stage", "does", "scope", "reads", "needs", "assets", "tables")


def stage_table() -> str:
    """All stages, a row each, as Markdown."""
    rows = [_HEAD, tuple("---" for _ in _HEAD), *map(_row, STAGES)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(stage: Stage) -> tuple[str, ...]:
    reads = [read.stage if read.of is None else f"{read.stage} of other runs" for read in stage.inputs]
    reads += ["then all others of the run"] if stage.after else []
    needs = "all" if len(stage.needs) == 4 else ", ".join(sorted(stage.needs)) or "–"
    names = [", ".join(f"`{name}`" for name in names) or "–" for names in (stage.assets, stage.tables)]
    return (f"`{stage.name}`", stage.says.rstrip("."), stage.scope.value, ", ".join(reads) or "–", needs, *names)


def documented(page: str) -> str:
    """A page with the table between its marks.

    Raises:
        ValueError: the page has no such marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{stage_table()}\n\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(documented(path.read_text()))
