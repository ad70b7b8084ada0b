"""`mech example`: one training example, the updates that saw it, and what it did and would do."""

from typing import Annotated

import typer

from mech_pipeline.commands.opening import existing_store
from mech_pipeline.commands.output import say, show
from mech_pipeline.plain_text import PlainTable

_LEDGER = """
with sums as (
    select run, mechanism, example_id, sum(value::double + value_later::double) as nats
    from ledger where term = 'example' group by all
), ranked as (
    select *, rank() over (partition by run, mechanism order by nats desc) as place,
        count(*) over (partition by run, mechanism) as examples
    from sums
)
select run, mechanism, nats, place, examples from ranked where example_id = ? order by run, mechanism
"""
_INFLUENCE = """
select run, mechanism, step, sum(value::double), bool_and(reliable) from influence
where example_id = ? and method = 'adjoint' group by run, mechanism, step order by all
"""
_UPDATES_SHOWN = 12


def example(
    example_id: Annotated[str, typer.Argument(help="id of a training example, or the beginning of it")],
) -> None:
    """Show a training example: its text and document, which updates saw it, its ledger and its influence."""
    from mech_pipeline.store.reading.example import find_example
    from mech_pipeline.store.reading.shared import reading

    root = existing_store().root
    found = find_example(root, example_id)
    snippet = f", one snippet of {found.period} tokens repeated" if found.period else ""
    say(f"example {found.example_id}: {found.kind}, {found.n_tokens} tokens{snippet}")
    say(f"from {found.document}, line {found.line}, byte {found.offset} (source {found.source})")
    for run, updates in found.updates.items():
        listed = ", ".join(map(str, updates[:_UPDATES_SHOWN])) + (" …" if len(updates) > _UPDATES_SHOWN else "")
        say(f"{run} saw it {len(updates)} times, at updates {listed}")
    if not found.updates:
        say("no run saw it")
    say(f"\n{found.text}\n")
    with reading(root, ["ledger", "influence", "reliability", "lds"]) as connection:
        ledger = connection.execute(_LEDGER, [found.example_id]).fetchall()
        influence = connection.execute(_INFLUENCE, [found.example_id]).fetchall()
    if ledger:
        shown = PlainTable("run", "mechanism", "what it did (ledger, unit of the mechanism)", "rank")
        for run, mechanism, value, place, examples in ledger:
            shown.add_row(run, mechanism, f"{value:+.3g}", f"{place} of {examples}")
        show(shown)
    if influence:
        shown = PlainTable("run", "mechanism", "at step", "per unit of weight (influence, a prediction)", "reliable")
        for run, mechanism, step, value, reliable in influence:
            said = "not measured" if reliable is None else ("yes" if reliable else "no")
            shown.add_row(run, mechanism, str(step), f"{value:+.3g}", said)
        show(shown)
