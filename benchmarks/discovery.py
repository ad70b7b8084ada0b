"""How well discovery finds what was planted: `python benchmarks/discovery.py EXPERIMENT`, seconds; see benchmarks/README.md.

Reads the store of the project that one stands in; trains nothing. `mech run` the experiment first.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from discovery_runs import Planted, Run, runs_of
from jaxtyping import Int
from numpy.typing import NDArray

from mech_pipeline.discovery import baselines
from mech_pipeline.discovery.clusters import PLACES, clusters, skills
from mech_pipeline.discovery.formed import discoveries
from mech_pipeline.discovery.scoring import agreement
from mech_pipeline.discovery.truth import recalled
from mech_pipeline.signals.rates import rate


def labelled(run: Run, smallest: int) -> dict[str, Int[NDArray, " token"]]:
    """Every way to label the run's tokens: ours first, then what they must beat; these get as many clusters as there are kinds."""
    count = len(set(run.kinds))
    found = {f"{way}, HDBSCAN": clusters(run.paths, smallest, way) for way in PLACES}
    own = next(iter(found.values()))
    return {
        **found,
        "non-negative parts": skills(run.paths, count)[0].argmax(1),
        "loss curves, k-means": baselines.loss_curves(run.paths, count),
        "last window, k-means": baselines.last_window(run.paths, count),
        "bins by frequency": baselines.bins(run.frequency, count),
        "bins by compression": baselines.bins(baselines.compressed_share(run.contexts), count),
        "random, sizes of the first": baselines.random_like(own),
    }


def agreements(runs: Sequence[Run], smallest: int) -> pl.DataFrame:
    """Agreement with the planted kinds, a row per run and way."""
    rows = []
    for run in runs:
        for way, labels in labelled(run, smallest).items():
            rows.append({"run": run.name, "labels": way, **vars(agreement(run.kinds, labels))})
    return pl.DataFrame(rows)


def recalls(runs: Sequence[Run], planted: Sequence[Planted], smallest: int) -> pl.DataFrame:
    """What became of every planted mechanism, a row per run, way and mechanism."""
    rows = []
    for run in runs:
        for way in PLACES:
            found = discoveries(run.paths, clusters(run.paths, smallest, way))
            for one in planted:
                needs, formed_at, heads = run.needs(one), run.formed_at(one.event), run.heads(one.detector)
                row = {"run": run.name, "by": way, "planted": one.kind, "tokens": int(needs.sum())}
                row |= {"detector_step": formed_at}
                rows.append(row | vars(recalled(run.paths, found, needs, formed_at, heads)))
    return pl.DataFrame(rows, infer_schema_length=None)


def false_discoveries(runs: Sequence[Run], smallest: int) -> pl.DataFrame:
    """Discoveries in runs where nothing can form, by arm and way, with the bound that they show."""
    rows = []
    for arm in sorted({run.arm for run in runs}):
        some = [run for run in runs if run.arm == arm]
        for way in PLACES:
            found = [discoveries(run.paths, clusters(run.paths, smallest, way)) for run in some]
            counts = [sum(one.is_discovery for one in each) for each in found]
            seen = rate(sum(map(bool, counts)), len(counts))
            largest = max((one.looking.low for each in found for one in each), default=0.0)
            row = {"arm": arm, "by": way, "runs": len(counts), "discoveries": sum(counts), "largest_low": largest}
            rows.append(row | {"with_one": seen.count, "fewer_than": seen.bound})
    return pl.DataFrame(rows)


def main(
    experiment: Annotated[str, typer.Argument(help="name of an experiment in the store")],
    planted: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND[+]=EVENT[:DETECTOR]", help="a planted mechanism; + : repeated tokens alone"),
    ] = None,
    nulls: Annotated[list[str] | None, typer.Option(help="an arm in which nothing can form")] = None,
    smallest: Annotated[int, typer.Option(help="tokens of a cluster")] = 12,
    seeds: Annotated[list[int] | None, typer.Option(help="these seeds alone, for example those not chosen on")] = None,
    root: Annotated[str, typer.Option(help="the store")] = "store",
    csv: Annotated[Path | None, typer.Option(help="folder for the tables")] = None,
) -> None:
    """Scores the experiment's runs: agreement with kinds beside baselines, recall, false discoveries."""
    every = [run for run in runs_of(root, experiment) if seeds is None or run.seed in seeds]
    null_arms = nulls or []
    scored = [run for run in every if run.arm not in null_arms]
    null_runs = [run for run in every if run.arm in null_arms]
    tables = {"agreement": agreements(scored, smallest)} if scored else {}
    if scored and planted:
        tables["recall"] = recalls(scored, [Planted.of(text) for text in planted], smallest)
    if null_runs:
        tables["false_discoveries"] = false_discoveries(null_runs, smallest)
    for name, table in tables.items():
        shown = table if name != "agreement" else _means(table)
        with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200, float_precision=3, tbl_hide_dataframe_shape=True):
            typer.echo(f"{name}\n{shown}")
        if csv is not None:
            csv.mkdir(parents=True, exist_ok=True)
            table.write_csv(csv / f"{experiment}.{name}.csv", float_precision=4)


def _means(table: pl.DataFrame) -> pl.DataFrame:
    """Over runs, V with its range."""
    parts = ["clusters", "clustered", "homogeneity", "completeness", "v_measure", "adjusted_rand"]
    ends = [pl.col("v_measure").min().alias("v_least"), pl.col("v_measure").max().alias("v_most")]
    return table.group_by("labels", maintain_order=True).agg(
        pl.len().alias("runs"), *(pl.col(p).mean() for p in parts), *ends
    )


if __name__ == "__main__":
    typer.run(main)
