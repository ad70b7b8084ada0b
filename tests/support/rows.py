"""Rows of one table, as small as rows can be."""


def values(run="r", steps=(1, 2), mechanism="m", value=1.0, made_from="f"):
    count = len(steps)
    return {
        "run": [run] * count,
        "step": list(steps),
        "mechanism": [mechanism] * count,
        "value": [value] * count,
        "input_fingerprint": [made_from] * count,
        "data_version": ["d"] * count,
    }


def write(store, steps=(1, 2), mechanism="m", **change):
    rows = values(steps=steps, mechanism=mechanism, **change)
    store.write("mechanism_values", rows, replace={"run": ["r"], "step": list(steps), "mechanism": [mechanism]})


def write_run(store, run="r", steps=(1, 2), value=1.0):
    """Rows of a run, in the place of whatever rows it has at these steps."""
    return store.write(
        "mechanism_values", values(run, steps, value=float(value)), replace={"run": [run], "step": list(steps)}
    )
