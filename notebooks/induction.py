"""The demo, walked with `mech_pipeline.open`: curves, attention patterns over training, the examples behind them.

Run the demo first (`make demo`), then `marimo edit notebooks/induction.py` (`make browse` installs marimo).
"""

import marimo

app = marimo.App(width="medium")


@app.cell
def _():
    import marimo as mo
    import matplotlib.pyplot as plt
    import polars as pl
    import torch

    import mech_pipeline

    run = mech_pipeline.open("induction.baseline.s0")
    run
    return mo, pl, plt, run, torch


@app.cell
def _(mo):
    mo.md("""
    # When does an induction head form, and which data made it?

    Every cell needs the one store that `mech run` filled. `run.frame(table)` gives a table of the run
    (docs/tables.md names them), `run.model(step)` the model as it was.
    """)
    return


@app.cell
def _(plt, run):
    values = run.frame("mechanism_values")
    curves, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    for (_name,), _curve in values.group_by("mechanism", maintain_order=True):
        axes.plot(_curve["step"], _curve["value"], marker=".", label=_name)
    axes.set(xlabel="updates", ylabel="value (unit of each mechanism)", title="Mechanisms of the run")
    axes.legend()
    curves
    return curves, values


@app.cell
def _(pl, run):
    best = (
        run.frame("head_scores")
        .filter(pl.col("detector") == "prefix_matching", pl.col("step") == run.steps[-1])
        .sort("value")
        .row(-1, named=True)
    )
    layer, head = best["layer"], best["head"]
    best
    return best, head, layer


@app.cell
def _(head, layer, run, torch):
    # One held-out sequence that repeats itself: the probe that the mechanism is measured on.
    sequence = run.probe("induction_copy_advantage").tokens[:1]
    shown = [run.steps[round(_part * (len(run.steps) - 1))] for _part in (0, 0.25, 0.5, 0.75, 1)]
    patterns = {}
    for _step in shown:
        with torch.no_grad():
            _, _cache = run.model(_step).run_with_cache(sequence)
        patterns[_step] = _cache[f"blocks.{layer}.attn.hook_pattern"][0, head]
    return patterns, sequence, shown


@app.cell
def _(head, layer, patterns, plt):
    over_training, _panels = plt.subplots(1, len(patterns), figsize=(11, 2.6), layout="constrained", sharey=True)
    for _panel, (_step, _pattern) in zip(_panels, patterns.items(), strict=True):
        _panel.imshow(_pattern.numpy(), cmap="viridis", vmin=0, vmax=1)
        _panel.set(title=f"after {_step} updates", xlabel="attends to (token)")
    _panels[0].set_ylabel("token")
    over_training.suptitle(f"Attention of L{layer}H{head}: the stripe below the diagonal is induction")
    over_training
    return (over_training,)


@app.cell
def _(pl, run):
    # What happened: the examples whose gradients raised the mechanism most, through all their updates.
    ledger = (
        run.frame("ledger")
        .filter(pl.col("term") == "example")
        .group_by("example_id")
        .agg(nats=pl.col("value").cast(pl.Float64).sum() + pl.col("value_later").cast(pl.Float64).sum())
        .sort("nats", descending=True)
    )
    ledger.head(5)
    return (ledger,)


@app.cell
def _(ledger, mo, run):
    example = run.example(ledger["example_id"][0])
    mo.md(f"""
    The first of them stands in `{example.document}`, line {example.line} ({example.kind}, snippet of {example.period}
    tokens). Updates that saw it: {example.updates[run.spec.run]}.

    ```
    {run.tokenizer.decode(example.tokens[: example.period or None].tolist())}
    ```
    """)
    return (example,)


if __name__ == "__main__":
    app.run()
