"""How well discovery finds what was planted: `python benchmarks/discovery.py EXPERIMENT`, seconds; see benchmarks/README.md.

Reads the store of the project that one stands in; trains nothing. `mech run` the experiment first.
"""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer
from discovery_runs import Planted, Run, runs_of
from jaxtyping import Int
from numpy.typing import NDArray

from mech_pipeline.discovery import baselines
from mech_pipeline.discovery.clusters import skills
from mech_pipeline.discovery.needs import places
from mech_pipeline.discovery.paths import Paths
from mech_pipeline.discovery.scoring import agreement
from mech_pipeline.discovery.stability import Labels, matched, over_draws
from mech_pipeline.discovery.truth import recalled
from mech_pipeline.signals.rates import poisson_interval, rate


def labelled(run: Run, smallest: int) -> dict[str, Int[NDArray, " token"]]:
    """Every way to label the run's tokens: ours first, then what they must beat; these get as many clusters as there are kinds."""
    count, tokens = len(set(run.kinds)), run.followed
    found = {f"{way}, HDBSCAN": run.clusters(way, smallest) for way in run.ways}
    own = next(iter(found.values()))
    if isinstance(tokens, Paths):
        found["non-negative parts"] = skills(tokens, count)[0].argmax(1)
        found["last window, k-means"] = baselines.last_window(tokens, count)
    else:
        found["needs, k-means"] = baselines.in_groups(places(tokens), count)
    return {
        **found,
        "loss curves, k-means": baselines.loss_curves(tokens, count),
        "bins by frequency": baselines.bins(run.frequency, count),
        "bins by compression": baselines.bins(baselines.compressed_share(run.contexts), count),
        "random, sizes of the first": baselines.random_like(own),
    }


def agreements(runs: Sequence[Run], planted: Sequence[Planted], smallest: int) -> pl.DataFrame:
    """Agreement with the planted kinds, and with skills where mechanisms were planted: a row per run, truth and way."""
    rows = []
    for run in runs:
        truths = {"kind": run.kinds} | ({"skill": run.skills(planted)} if planted else {})
        for way, labels in labelled(run, smallest).items():
            for name, truth in truths.items():
                rows.append({"run": run.name, "against": name, "labels": way, **vars(agreement(truth, labels))})
    return pl.DataFrame(rows)


def recalls(runs: Sequence[Run], planted: Sequence[Planted], smallest: int) -> pl.DataFrame:
    """What became of every planted mechanism, a row per run, way and mechanism."""
    rows = []
    for run in runs:
        for way in run.ways:
            found = run.found(run.clusters(way, smallest))
            for one in planted:
                needs, formed_at, heads = run.needs(one), run.formed_at(one.event), run.heads(one.detector)
                row = {"run": run.name, "by": way, "planted": one.kind, "tokens": int(needs.sum())}
                row |= {"detector_step": formed_at, "discoveries": sum(each.is_discovery for each in found)}
                rows.append(row | vars(recalled(run.followed, found, needs, formed_at, heads)))
    return pl.DataFrame(rows, infer_schema_length=None)


def stabilities(runs: Sequence[Run], smallest: int) -> pl.DataFrame:
    """Matched overlap of clusters and of discoveries over draws of the probe, and over seeds of training."""
    rows = []
    for way in dict.fromkeys(way for run in runs for way in run.ways):
        with_way = [run for run in runs if way in run.ways]
        labels = {run.name: run.clusters(way, smallest) for run in with_way}
        found = {run.name: run.discovered(labels[run.name]) for run in with_way}
        for run in with_way:
            for of, drawn in _over_draws(run, way, smallest).items():
                rows += [{"by": way, "over": "draws", "of": of, "runs": run.name, "overlap": each} for each in drawn]
        for of, some in (("clusters", labels), ("discoveries", found)):
            for one, other in combinations(with_way, 2):
                if one.arm == other.arm and one.seed != other.seed:
                    overlap = matched(*_of_both(one, other, some))
                    pair = f"{one.name} {other.name}"
                    rows.append({"by": way, "over": "seeds", "of": of, "runs": pair, "overlap": overlap})
    return pl.DataFrame(rows, infer_schema_length=None)


def _over_draws(run: Run, way: str, smallest: int) -> dict[str, list[float | None]]:
    """Overlap of clusters, and of discoveries, of pairs of draws of the run's tokens."""
    return {
        "clusters": over_draws(run.followed, lambda tokens: run.clusters(way, smallest, tokens)),
        "discoveries": over_draws(
            run.followed, lambda tokens: run.discovered(run.clusters(way, smallest, tokens), tokens)
        ),
    }


def _of_both(one: Run, other: Run, labels: dict[str, Labels]) -> tuple[Labels, Labels]:
    """The labels of the tokens that two runs both have."""
    ours, theirs = ({place: index for index, place in enumerate(run.places)} for run in (one, other))
    shared = [place for place in ours if place in theirs]
    pair = ((one, ours), (other, theirs))
    first, second = (labels[run.name][[places[each] for each in shared]] for run, places in pair)
    return first, second


def counted(runs: Sequence[Run], smallest: int) -> pl.DataFrame:
    """How many runs have a discovery and how many discoveries a run has, by arm and of all, with exact intervals of 95 %."""
    rows = []
    ways = dict.fromkeys(way for run in runs for way in run.ways)
    found = {way: {run: run.counted(way, smallest) for run in runs if way in run.ways} for way in ways}
    arms = sorted({run.arm for run in runs})
    for arm in [*arms, *(["all"] if len(arms) > 1 else [])]:
        for way in ways:
            some = [found[way][run] for run in found[way] if arm in ("all", run.arm)]
            counts, lows = [count for count, _ in some], [low for _, low in some]
            seen, a_run = rate(sum(map(bool, counts)), len(counts)), poisson_interval(sum(counts), len(counts))
            row = {"arm": arm, "by": way, "runs": len(counts), "discoveries": sum(counts)}
            row |= {"a_run_low": a_run[0], "a_run_high": a_run[1]}
            row |= {"with_one": seen.count, "share_low": seen.lower, "share_high": seen.upper, "fewer_than": seen.bound}
            rows.append(row | {"median_low": float(np.median(lows)), "largest_low": max(lows)})
    return pl.DataFrame(rows)


def main(
    experiment: Annotated[str, typer.Argument(help="name of an experiment in the store")],
    planted: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND[+][~PATTERN]=EVENT[:DETECTOR]",
            help="a planted mechanism; + : repeated tokens alone; PATTERN: those behind such text",
        ),
    ] = None,
    nulls: Annotated[list[str] | None, typer.Option(help="an arm in which nothing can form")] = None,
    forms: Annotated[list[str] | None, typer.Option(help="an arm in which something forms, of the nulls' size")] = None,
    smallest: Annotated[int, typer.Option(help="tokens of a cluster")] = 12,
    seeds: Annotated[list[int] | None, typer.Option(help="these seeds alone, for example those not chosen on")] = None,
    root: Annotated[str, typer.Option(help="the store")] = "store",
    csv: Annotated[Path | None, typer.Option(help="folder for the tables")] = None,
) -> None:
    """Scores the experiment's runs: agreement with kinds beside baselines, stability, recall, false discoveries."""
    mechanisms = [Planted.of(text) for text in planted or []]
    every = [run for run in runs_of(root, experiment) if seeds is None or run.seed in seeds]
    controls = {"false_discoveries": nulls or [], "positive_control": forms or []}
    scored = [run for run in every if run.arm not in (nulls or []) + (forms or [])]
    tables = {}
    if scored:
        tables["agreement"] = agreements(scored, mechanisms, smallest)
        tables["stability"] = stabilities(scored, smallest)
    if scored and planted:
        tables["recall"] = recalls(scored, mechanisms, smallest)
    for name, arms in controls.items():
        if some := [run for run in every if run.arm in arms]:
            tables[name] = counted(some, smallest)
    for name, table in tables.items():
        shown = _SHOWN.get(name, lambda whole: whole)(table)
        with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200, float_precision=3, tbl_hide_dataframe_shape=True):
            typer.echo(f"{name}\n{shown}")
        if csv is not None:
            csv.mkdir(parents=True, exist_ok=True)
            table.write_csv(csv / f"{experiment}.{name}.csv", float_precision=4)


def _over_pairs(table: pl.DataFrame) -> pl.DataFrame:
    """Over pairs, with the range; `pairs`: of them, those in which there was something to match."""
    overlap = pl.col("overlap")
    return table.group_by("by", "over", "of", maintain_order=True).agg(
        overlap.count().alias("pairs"), overlap.mean(), overlap.min().alias("least"), overlap.max().alias("most")
    )


def _means(table: pl.DataFrame) -> pl.DataFrame:
    """Over runs, V with its range."""
    parts = ["clusters", "clustered", "homogeneity", "completeness", "v_measure", "adjusted_rand"]
    ends = [pl.col("v_measure").min().alias("v_least"), pl.col("v_measure").max().alias("v_most")]
    return table.group_by("against", "labels", maintain_order=True).agg(
        pl.len().alias("runs"), *(pl.col(p).mean() for p in parts), *ends
    )


_SHOWN = {"agreement": _means, "stability": _over_pairs}


if __name__ == "__main__":
    typer.run(main)
