"""Tables of circuits: which edges carry a mechanism, and how much the first of them carry."""

from mech_pipeline.store.tables.table import MECHANISM, RUN, STEP, Column, Table

CIRCUIT_TABLES = (
    Table(
        "circuits",
        "one row per checkpoint, mechanism and edge of the model: how much the edge carries (edge attribution patching with"
        " integrated gradients)",
        (
            RUN,
            STEP,
            MECHANISM,
            Column("source", "string", "what writes: input, a0.h1 (head 1 of layer 0) or m0 (MLP)"),
            Column("target", "string", "what reads: a1.h2<q> (<k>, <v>), m1 or logits"),
            Column(
                "score", "float64", "above 0: what is clean on the edge raises the mechanism", "unit of the mechanism"
            ),
            Column("place", "int32", "place in the greedy order, 0 first: every beginning leads to the logits"),
            Column("in_circuit", "bool", "among the first edges that together carry 80 % of the mechanism"),
            Column("again", "bool", "the same, with another draw of prompts: two draws differ by chance", "", True),
        ),
        keys=("run", "step", "mechanism", "source", "target"),
        item="mechanism",
    ),
    Table(
        "circuit_curves",
        "one row per checkpoint, mechanism, order of the edges and number of edges kept: how much of the mechanism is left",
        (
            RUN,
            STEP,
            MECHANISM,
            Column(
                "ordering", "string", "attributed: the greedy order of `circuits`; random 0, random 1, …: a baseline"
            ),
            Column("edges", "int32", "edges kept, the first of the order; all others carry the corrupted prompt's"),
            Column("share", "float64", "edges kept, of all edges", "share"),
            Column("value", "float64", "the mechanism of the model with these edges", "unit of the mechanism"),
            Column(
                "faithfulness", "float64", "0: as with none of the edges, 1: as with all", "share of the difference"
            ),
        ),
        keys=("run", "step", "mechanism", "ordering", "edges"),
        item="mechanism",
    ),
    Table(
        "circuit_criteria",
        "one row per checkpoint, mechanism and trial: does the circuit break as the model does (completeness), and is each of"
        " its edges needed (minimality)?",
        (
            RUN,
            STEP,
            MECHANISM,
            Column("criterion", "string", "completeness or minimality"),
            Column("trial", "int32", "number of the trial, from 0 within a criterion"),
            Column("edge", "string", "minimality: the edge that is in question, source → target", "", True),
            Column("removed", "string", "edges that are removed from both sides, by commas"),
            Column(
                "faithfulness",
                "float64",
                "of the circuit without `removed` (and, for minimality, without `edge`)",
                "share of the difference",
            ),
            Column(
                "reference",
                "float64",
                "completeness: of the model without `removed`; minimality: of the circuit without `removed`",
                "share of the difference",
            ),
        ),
        keys=("run", "step", "mechanism", "criterion", "trial"),
        item="mechanism",
    ),
)
