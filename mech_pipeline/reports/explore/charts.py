"""The linked pictures of the page to explore, as Vega-Lite descriptions made with Altair.

A brush over the steps of the curves narrows the components to those windows; a point or a cell that is clicked is told to
the page, which shows that window's examples. Altair's own validation is left out: it takes longer than everything else, and a
test draws the pictures in a browser.
"""

from collections.abc import Mapping
from typing import Any

import altair as alt

from mech_pipeline.reports.drawing import PALETTE

Rows = list[dict[str, Any]]
_WIDTH = 640


def training(curves: Rows, units: Mapping[str, str], components: Rows, unit: str) -> dict[str, Any]:
    """Curves of every mechanism and run, and under them the ledger's components by window."""
    brush = alt.selection_interval(name="brush", encodings=["x"])
    panels: list[Any] = [
        _curves(curves, name, units[name], brush if place == 0 else None) for place, name in enumerate(units)
    ]
    if components:
        panels.insert(1, _components(components, unit, brush))
    return alt.vconcat(*panels).resolve_scale(color="independent").to_dict(validate=False)


def _curves(curves: Rows, mechanism: str, unit: str, brush: Any) -> Any:
    here = [row for row in curves if row["mechanism"] == mechanism]
    tip = [
        alt.Tooltip("run:N"),
        alt.Tooltip("seed:N"),
        alt.Tooltip("step:Q"),
        alt.Tooltip("value:Q", title=f"value ({unit})"),
    ]
    base = alt.Chart(alt.Data(values=here)).encode(
        x=alt.X("step:Q", title="training step (updates)"),
        y=alt.Y("value:Q", title=unit),
        color=alt.Color("arm:N", scale=alt.Scale(range=list(PALETTE))),
        detail="run:N",
        tooltip=tip,
    )
    drawn = base.mark_line(strokeWidth=1.5) + base.mark_circle(size=45, opacity=0.35)
    if brush is not None:
        drawn = drawn.add_params(brush)
        drawn.layer[0].name = "curves"  # else Altair counts, and no two pages would be the same
    return drawn.properties(width=_WIDTH, height=200 if brush is not None else 110, title=mechanism)


def _components(rows: Rows, unit: str, brush: Any) -> Any:
    measure = alt.param(
        name="measure",
        value="net",
        bind=alt.binding_radio(options=["net", "gross"], name="components: what examples did, "),
    )
    largest = {name: max(abs(row[name]) for row in rows) or 1.0 for name in ("net", "gross")}
    end = f"(measure == 'net' ? {largest['net']} : {largest['gross']})"  # alike on both sides of 0: a shade is a size
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_rect()
        .transform_filter(brush)
        .transform_calculate(shown="datum[measure]")
        .encode(
            x=alt.X("step:O", title="window, by the checkpoint that ends it", axis=alt.Axis(labelOverlap=True)),
            y=alt.Y("component:N", title=None),
            color=alt.Color(
                "shown:Q",
                title=unit,
                scale=alt.Scale(
                    scheme="blueorange",
                    domainMin=alt.ExprRef(f"-{end}"),
                    domainMax=alt.ExprRef(end),
                    type="symlog",
                    constant=largest["gross"] / 50,
                ),
            ),
            tooltip=["component:N", "step:O", alt.Tooltip("net:Q"), alt.Tooltip("gross:Q")],
        )
        .add_params(measure)
        .properties(
            name="components",
            width=_WIDTH,
            height=alt.Step(14),
            title=f"Ledger by component and window ({unit}); click a cell for its examples",
        )
    )


def atlas(heads: Rows) -> dict[str, Any]:
    """Every head's score by every detector at one checkpoint, which a slider chooses."""
    last = max(row["place"] for row in heads)
    place = alt.param(
        name="place",
        value=last,
        bind=alt.binding_range(min=0, max=last, step=1, name="checkpoint, from the first to the last: "),
    )
    detectors = sorted({row["detector"] for row in heads})
    steps = [{"place": place, "step": step} for place, step in sorted({(row["place"], row["step"]) for row in heads})]
    panels: list[Any] = [
        alt.Chart(alt.Data(values=steps))
        .mark_text(fontSize=14, align="left")
        .transform_filter("datum.place == place")
        .transform_calculate(shown="'step ' + datum.step")
        .encode(x=alt.value(0), text="shown:N")
        .properties(name="atlas_step", width=100, height=26, view=alt.ViewBackground(stroke=None))
    ]
    for detector in detectors:
        here = [row for row in heads if row["detector"] == detector]
        most = max(1.0, *(abs(row["value"]) for row in here))
        panels.append(
            alt.Chart(alt.Data(values=here))
            .mark_rect()
            .transform_filter("datum.place == place")
            .encode(
                x=alt.X("head:O", title="head", axis=alt.Axis(labelAngle=0)),
                y=alt.Y("layer:O", title="layer", sort="descending"),
                color=alt.Color("value:Q", title=None, scale=alt.Scale(scheme="blueorange", domain=[-most, most])),
                tooltip=["step:Q", "layer:O", "head:O", alt.Tooltip("value:Q")],
            )
            .properties(name=f"atlas_{detector}", width=alt.Step(26), height=alt.Step(26), title=detector)
        )
    return alt.concat(*panels, columns=3).add_params(place).resolve_scale(color="independent").to_dict(validate=False)
