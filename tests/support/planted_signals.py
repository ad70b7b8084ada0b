"""Values of two signals and an event, planted in a store: the loss falls before the event, the elapsed step tells nothing."""

from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.stage import View
from mech_pipeline.spec.experiment import parse_experiment
from tests.support.tiny import MINIMAL

STEPS, EVENT = tuple(range(0, 120, 20)), 80
ASKED = {
    "measure": ["training_loss", "elapsed_step"],
    "events": ["event"],
    "negatives": ["none"],
    "explore_seeds": [0, 1, 2, 3],
    "claim": 0.5,
}


def experiment_of(seeds=12, **change):
    return parse_experiment(
        MINIMAL | {"seeds": list(range(seeds)), "arms": {"event": {}, "none": {}}, "signals": ASKED | change}
    )


def plant(store, runs, otherwise=(), rings=()):
    """The loss falls forty updates before the event, and never in runs without; `otherwise`: runs that come out wrong;
    `rings`: runs whose loss falls though nothing comes."""
    values, events = list[Block](), list[Block]()
    for spec in runs:
        event = (spec.arm == "event") != (spec.run in otherwise)
        falls = event or spec.run in rings
        loss = [3 + 0.01 * ((7 * spec.seed + step) % 5) - (2 if falls and step >= EVENT - 40 else 0) for step in STEPS]
        for name, of in (("training_loss", loss), ("elapsed_step", [float(step) for step in STEPS])):
            cells = [Cell("signal_values", spec.run, step, name) for step in STEPS]
            values += [Block(cell, {"value": [one]}, "planted") for cell, one in zip(cells, of, strict=True)]
        step = EVENT if event else None
        columns = {"step": [step], "lower": [step - 20 if step else STEPS[-1]], "upper": [step], "threshold": [1.5]}
        columns |= {"sustain": [3], "censored": [step is None]}
        events.append(Block(Cell("formation", spec.run, item="induction_copy_advantage"), columns, "planted"))
    write(store, values, "1")
    write(store, events, "1")


def view_of(store, experiment):
    return View(store, experiment.runs(), {}, experiment)
