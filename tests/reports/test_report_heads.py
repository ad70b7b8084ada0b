"""Pictures of attention heads."""

import duckdb
import numpy as np
import pytest

from mech_pipeline.reports.heads import queries as head_queries
from mech_pipeline.reports.heads.figures import head_atlas
from tests.support.report_store import RUN


def test_atlas_shows_every_head_at_every_checkpoint(connection: duckdb.DuckDBPyConnection) -> None:
    scores = head_queries.head_scores(connection, RUN)
    picture = head_atlas(scores, RUN, {"prefix_matching": "attention probability"})
    shown = np.asarray(picture.axes[0].get_images()[0].get_array())
    heads = scores.select("layer", "head").unique().sort("layer", "head").rows()
    steps = scores["step"].unique().sort().to_list()
    assert shown.shape == (len(heads), len(steps))
    for row in scores.filter(detector="prefix_matching").iter_rows(named=True):
        place = heads.index((row["layer"], row["head"])), steps.index(row["step"])
        assert shown[place] == pytest.approx(row["value"])
    labels = [label.get_text() for label in picture.axes[0].get_yticklabels()]
    assert labels == [f"L{layer}H{head}" for layer, head in heads]
