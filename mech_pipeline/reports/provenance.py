"""Where the numbers of a report come from, and the SQL to go on with."""

import json
from collections.abc import Sequence

import duckdb
import polars as pl

from mech_pipeline.frames import frame
from mech_pipeline.reports.section import Section
from mech_pipeline.reports.subject import Study


def provenance(study: Study) -> Section:
    """The runs' fingerprints and versions, and SELECTs over what they hold."""
    found = run_provenance(study.connection, study.runs)
    context = {"runs": found.to_dicts(), "versions": version_texts(found), "sql": sql_examples(study)}
    return Section("provenance", "Provenance", "provenance.html", context)


def run_provenance(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> pl.DataFrame:
    """What each run was made from: run, seed, status, fingerprint, device, versions (JSON)."""
    return frame(
        connection,
        """select run, seed, status, fingerprint, device, versions from runs
        where run = any($runs::varchar[]) order by list_position($runs::varchar[], run)""",
        runs=list(runs),
    )


def version_texts(provenance: pl.DataFrame) -> list[str]:
    """The distinct versions of the runs (rows of `run_provenance`), JSON indented; other text as it stands."""
    return [_indented(text) for text in provenance["versions"].unique(maintain_order=True)]


def _indented(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False)
    except json.JSONDecodeError:
        return text


def sql_examples(study: Study) -> list[tuple[str, str]]:
    """(what it shows, SELECT) pairs over what this experiment has; each runs as it stands."""
    experiment, run = study.experiment, study.runs[0]
    examples = [
        (
            "When each run formed",
            "select r.arm, r.seed, f.step, f.lower, f.censored from formation f join runs r using (run) "
            f"where r.experiment = '{experiment.experiment}' and f.mechanism = '{experiment.formation[0].signal}' order by all",
        )
    ]
    examples += [
        (
            "A mechanism over training",
            f"select step, value from mechanism_values where run = '{run}' and mechanism = '{name}' order by step",
        )
        for name in experiment.mechanisms[:1]
    ]
    examples += [
        (
            "What each document did (ledger)",
            "select e.document, sum(l.value + l.value_later) as contribution from ledger l join examples e "
            f"using (example_id) where l.run = '{part.run}' and l.mechanism = '{part.mechanism}' "
            "and l.term = 'example' group by all order by contribution desc limit 20",
        )
        for part in study.ledgers[:1]
    ]
    examples += [
        (
            "When the examples with influence were seen, by kind",
            "select e.kind, i.update_step // 100 * 100 as from_update, sum(i.value) as influence from influence i "
            f"join examples e using (example_id) where i.run = '{part.run}' and i.mechanism = '{part.mechanism}' "
            f"and i.step = {part.target} and i.method = 'adjoint' group by all order by all",
        )
        for part in study.influences[:1]
    ]
    return examples
