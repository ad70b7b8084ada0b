"""Where the numbers of a report come from, and the SQL to go on with."""

import json

import polars as pl

from mech_pipeline.reports.influence.sections import InfluenceSection, LedgerSection
from mech_pipeline.spec.experiment import Experiment


def version_texts(provenance: pl.DataFrame) -> list[str]:
    """The distinct versions of the runs (rows of `queries.run_provenance`), JSON indented; other text as it stands."""
    return [_indented(text) for text in provenance["versions"].unique(maintain_order=True)]


def _indented(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False)
    except json.JSONDecodeError:
        return text


def sql_examples(
    experiment: Experiment, ledger: list[LedgerSection], influence: list[InfluenceSection]
) -> list[tuple[str, str]]:
    """(what it shows, SELECT) pairs over what this experiment has; each runs as it stands."""
    run, event = experiment.runs()[0].run, experiment.formation[0]
    examples = [
        (
            "When each run formed",
            "select r.arm, r.seed, f.step, f.lower, f.censored from formation f join runs r using (run) "
            f"where r.experiment = '{experiment.experiment}' and f.mechanism = '{event.signal}' order by all",
        ),
        (
            "A mechanism over training",
            f"select step, value from mechanism_values where run = '{run}' "
            f"and mechanism = '{experiment.mechanisms[0]}' order by step",
        ),
    ]
    examples += [
        (
            "What each document did (ledger)",
            "select e.document, sum(l.value + l.value_later) as contribution from ledger l join examples e "
            f"using (example_id) where l.run = '{part.run}' and l.mechanism = '{part.mechanism}' "
            "and l.term = 'example' group by all order by contribution desc limit 20",
        )
        for part in ledger[:1]
    ]
    examples += [
        (
            "When the examples with influence were seen, by kind",
            "select e.kind, i.update_step // 100 * 100 as from_update, sum(i.value) as influence from influence i "
            f"join examples e using (example_id) where i.run = '{part.run}' and i.mechanism = '{part.mechanism}' "
            f"and i.step = {part.target} and i.method = 'adjoint' group by all order by all",
        )
        for part in influence[:1]
    ]
    return examples
