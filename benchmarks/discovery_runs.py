"""The runs of an experiment as `discovery.py` scores them: paths, kinds and contexts of probe tokens, what detectors say."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray

from mech_pipeline.discovery.clusters import PLACES, clusters
from mech_pipeline.discovery.formed import Formed, discoveries
from mech_pipeline.discovery.needs import Needs, clusters_of_needs
from mech_pipeline.discovery.paths import Paths
from mech_pipeline.pipeline.discovery.discovery import stored_paths
from mech_pipeline.pipeline.discovery.needs import found_in, look_at, with_gains
from mech_pipeline.pipeline.discovery.probe import drawn_for
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.run_row import stored_spec
from mech_pipeline.project import find_project
from mech_pipeline.store.store import Store

_HALF = 0.5
"""Heads whose score is at least this share of the best one's are the detector's."""


@dataclass(frozen=True)
class Planted:
    """A planted mechanism: the tokens that need it, its formation event, its detector.

    Attributes:
        kind, repeated, pattern: tokens of this kind, repeated ones alone or all, whose text up to and including the
            predicted token ends like the pattern (a regular expression; empty: any).
    """

    kind: str
    repeated: bool
    pattern: str
    event: str
    detector: str

    @classmethod
    def of(cls, text: str) -> "Planted":
        r"""From `KIND[+][~PATTERN]=EVENT[:DETECTOR]`.

        >>> Planted.of("tiled+=induction:prefix_matching")
        Planted(kind='tiled', repeated=True, pattern='', event='induction', detector='prefix_matching')
        >>> Planted.of(r"sums/packed~= \d \d=carry_accuracy").pattern
        '= \\d \\d'
        """
        needs, equals, named = text.rpartition("=")
        if not (needs and equals and named):
            raise typer.BadParameter(f"{text!r} is not KIND[+][~PATTERN]=EVENT[:DETECTOR]")
        kind, _, pattern = needs.partition("~")
        try:
            re.compile(pattern)
        except re.error as error:
            raise typer.BadParameter(f"{pattern!r} of {text!r} is no regular expression: {error}") from error
        event, _, detector = named.partition(":")
        return cls(kind.removesuffix("+"), kind.endswith("+"), pattern, event, detector)

    def needed(self, kind: str, repeated: bool, text: str) -> bool:
        """Whether a token needs it."""
        return kind == self.kind and (repeated or not self.repeated) and bool(re.search(f"(?:{self.pattern})$", text))


@dataclass(frozen=True)
class Run:
    """One run with probe tokens."""

    store: Store
    name: str
    arm: str
    seed: int

    def _ask(self, table: str, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self.store.reading(table) as connection:
            return connection.execute(sql, [self.name, *values]).fetchall()

    @cached_property
    def paths(self) -> Paths:
        """Loss changes."""
        ends = self._ask("token_movement", "select distinct step from token_movement where run = ? order by step")
        return stored_paths(self.store, self.name, tuple(step for (step,) in ends))

    @cached_property
    def by_needs(self) -> bool:
        """Whether its clusters are by what tokens need."""
        return stored_spec(self.store, self.name).discovery.by == "needs"

    @cached_property
    def ways(self) -> tuple[str, ...]:
        """Every way of ours to cluster its tokens."""
        return ("needs",) if self.by_needs else tuple(PLACES)

    @cached_property
    def followed(self) -> Paths | Needs:
        """What is known of its tokens; by needs it is looked at anew, a minute or two."""
        return self._needs() if self.by_needs else self.paths

    def _needs(self) -> Needs:
        run = OpenRun(self.store, stored_spec(self.store, self.name).at(find_project().home))
        drawn = drawn_for(run)
        needs = look_at(run, drawn)
        return with_gains(run, drawn, needs, clusters_of_needs(needs, run.spec.discovery.smallest))

    def clusters(self, way: Any, smallest: int, followed: Any = None) -> NDArray[np.int64]:
        """The cluster of each token, or of some.

        Args:
            followed: some of the tokens; none: all.
        """
        tokens = self.followed if followed is None else followed
        return clusters_of_needs(tokens, smallest) if way == "needs" else clusters(tokens, smallest, way)

    def counted(self, way: str, smallest: int) -> tuple[int, float]:
        """Its discoveries, and the largest lower end of what a cluster gained; by needs as they are stored."""
        if self.by_needs:
            rows = self._ask("discoveries", "select is_discovery, looking_low from discoveries where run = ?")
        else:
            found = self.found(self.clusters(way, smallest))
            rows = [(one.is_discovery, one.looking.low) for one in found]
        return sum(row[0] for row in rows), max((row[1] for row in rows), default=0.0)

    def found(self, labels: NDArray[np.int64], followed: Any = None) -> list[Formed]:
        """What formed in clusters of its tokens, or of some."""
        tokens = self.followed if followed is None else followed
        return found_in(tokens, labels, 0) if self.by_needs else discoveries(tokens, labels)

    def discovered(self, labels: NDArray[np.int64], followed: Any = None) -> NDArray[np.int64]:
        """The same labels with −1 for clusters that are no discovery."""
        kept = np.full(len(labels), -1)
        for number, one in enumerate(self.found(labels, followed)):
            kept[one.tokens] = number if one.is_discovery else -1
        return kept

    @cached_property
    def places(self) -> list[tuple[int, ...]]:
        """What tells its tokens apart in whatever run they are of."""
        return [tuple(each) for each in self.contexts]

    @cached_property
    def _tokens(self) -> list[tuple[Any, ...]]:
        sql = (
            "select kind, repeated, token_ids, before || text from discovery_tokens where run = ? order by probe_token"
        )
        return self._ask("discovery_tokens", sql)

    @cached_property
    def kinds(self) -> NDArray[np.int64]:
        """A number for each kind."""
        return np.unique([row[0] for row in self._tokens], return_inverse=True)[1]

    @cached_property
    def contexts(self) -> list[list[int]]:
        """Token ids up to the predicted one."""
        return [[int(each) for each in row[2].split()] for row in self._tokens]

    @cached_property
    def frequency(self) -> NDArray[np.float64]:
        """How often the predicted token stands in all contexts."""
        counts = np.bincount(np.concatenate(self.contexts))
        return np.array([float(counts[context[-1]]) for context in self.contexts])

    def needs(self, planted: Planted) -> NDArray[np.bool_]:
        """The tokens that need a mechanism."""
        return np.array([planted.needed(row[0], row[1], row[3]) for row in self._tokens])

    def skills(self, planted: Sequence[Planted]) -> NDArray[np.int64]:
        """A number for each kind and planted mechanism: kinds again, and apart from them the tokens that need one."""
        needed = np.stack([self.needs(one) for one in planted])
        return np.where(needed.any(0), self.kinds.max() + 1 + needed.argmax(0), self.kinds)

    def formed_at(self, event: str) -> int | None:
        """When it formed by its detector."""
        rows = self._ask("formation", "select step from formation where run = ? and mechanism = ?", event)
        return None if not rows else rows[0][0]

    def heads(self, detector: str) -> set[str]:
        """Its heads at the last checkpoint."""
        sql = "select step, layer, head, value from head_scores where run = ? and detector = ? qualify step = max(step) over ()"
        rows = self._ask("head_scores", sql, detector) if detector else []
        best = max((row[3] for row in rows), default=0.0)
        return {f"L{layer}H{head}" for _, layer, head, value in rows if value >= _HALF * best > 0}


def runs_of(root: str, experiment: str) -> list[Run]:
    """The runs of an experiment in which discoveries were looked for."""
    store = Store(root)
    sql = "select distinct run, arm, seed from discovery_tokens join runs using (run) where experiment = ? order by all"
    with store.reading("runs", "discovery_tokens") as connection:
        rows = connection.execute(sql, [experiment]).fetchall()
    if not rows:
        raise typer.BadParameter(f"{experiment} has no run in {root} in which discoveries were looked for")
    return [Run(store, *row) for row in rows]
