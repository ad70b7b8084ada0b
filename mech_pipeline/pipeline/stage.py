"""What a stage of the pipeline is: one entry of the table in `stages.py`, from which everything about it is derived."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from mech_pipeline.pipeline.cells import Cell, pending_cells
from mech_pipeline.pipeline.found import FoundRun
from mech_pipeline.pipeline.needs import Need
from mech_pipeline.pipeline.stage_costs import measured
from mech_pipeline.progress import Emit
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

if TYPE_CHECKING:
    from mech_pipeline.pipeline.run import OpenRun


class Scope(StrEnum):
    """Of what a stage's cells are, and how they are cut into work.

    run: the whole run in one piece. checkpoint: ranges of checkpoints. target: the steps that influence aims at, in one
    piece. experiment: all runs of an experiment together.
    """

    RUN = "run"
    CHECKPOINT = "checkpoint"
    TARGET = "target"
    EXPERIMENT = "experiment"


def _nobody(done: list[int]) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Told:
    """Who is told of what a computation does.

    Attributes:
        emit: receives progress.
        on_steps: called with steps whose rows are stored (current ones first).
        on_rows: called with rows that are judged before they are stored.
        outputs: the outputs that are asked for; none: all.
    """

    emit: Emit = lambda line: None
    on_steps: Callable[[list[int]], None] = _nobody
    on_rows: Callable[[list[dict[str, object]]], None] = lambda rows: None
    outputs: tuple[str, ...] = ()


SILENT = Told()


@dataclass
class View:
    """One run, or all runs of an experiment, as a stage looks at them.

    Attributes:
        specs: the runs.
        corpora: SHA-256 of the content of each run's corpus, as it is now.
        experiment: for stages of whole experiments.
    """

    store: Store
    specs: tuple[RunSpec, ...]
    corpora: Mapping[str, str] = field(default_factory=dict)
    experiment: Experiment | None = None

    @property
    def spec(self) -> RunSpec:
        """The run; for stages of runs."""
        (spec,) = self.specs
        return spec

    @property
    def whole(self) -> Experiment:
        """The experiment; for stages of whole experiments."""
        assert self.experiment is not None, "the stage is of an experiment"
        return self.experiment

    @property
    def corpus_sha256(self) -> str:
        """The content of the run's corpus."""
        return self.corpora[self.spec.run]

    @cached_property
    def found(self) -> FoundRun:
        """The run as the store has it; its tokens must be there."""
        return FoundRun(self.store, self.spec)

    @cached_property
    def opened(self) -> "OpenRun":
        """The run opened for work, which imports PyTorch; its tokens must be there."""
        from mech_pipeline.pipeline.run import OpenRun

        return OpenRun(self.store, self.spec)


Cells = dict[Cell, str]
"""Cells with the fingerprints of what they would be made from now."""


FIRST_ROWS = 5
"""Rows of a partition that the UI shows of a ranking."""
TOP = f"qualify row_number() over (partition by step, mechanism order by abs({{by}}) desc) <= {FIRST_ROWS}"
"""SQL for the first rows of each mechanism at each step, by the size of a column."""


def always(version: str) -> Callable[[], str]:
    """A version that does not depend on what is found when it is asked for."""
    return lambda: version


@dataclass(frozen=True)
class Output:
    """One asset of a stage.

    Attributes:
        says: what it is, how big, how long it takes: shown in the UI.
        tables: that it fills; no other asset fills them.
        inputs: assets that it reads, one partition each.
        version: of the code that makes it.
        group: under which the UI lists it.
        kinds: badges in the UI.
        shows: the table whose columns and rows the UI shows; none: the first that it fills.
        rows: SQL for the rows of a partition that people look at: `$run` is the run, `$$` the steps.
        previewed: whether the UI shows the first of these rows with every partition; else only the SQL.
        scope: of its partitions, if that is not the stage's.
        pool: of Dagster's, if that is not the stage's.
    """

    name: str
    says: str
    tables: tuple[str, ...]
    version: Callable[[], str]
    inputs: tuple[str, ...] = ()
    group: str = "analysis"
    kinds: tuple[str, ...] = ("deltalake",)
    shows: str = ""
    rows: str = ""
    previewed: bool = True
    scope: Scope | None = None
    pool: str | None = None

    @property
    def table(self) -> str | None:
        """The table that the UI shows."""
        return self.shows or (self.tables[0] if self.tables else None)


@dataclass(frozen=True)
class Read:
    """That a stage reads what another stage made, of the same run or of others.

    Attributes:
        of: names the runs that are read; none: the run itself. Of a stage of an experiment: all its runs.
    """

    stage: str
    of: Callable[[RunSpec], Iterable[str]] | None = None


def everybody(spec: RunSpec) -> bool:
    """Of every run."""
    return True


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        says: one sentence.
        outputs: its assets.
        reads: stages that must be current before it is ready; where one is refused, so is this.
        after: stages that must be settled (current or refused) before it is ready, though it does not read them all.
        needs: what the checkpoints must bring, at most.
        spares: what of it a run's spec does without.
        asked: whether a run's spec asks for it at all.
        wanted: all cells that it should hold, as far as what it reads allows to say.
        compute: makes what is pending at these steps (none: all); returns how many cells. Called through `work`.
        refuses: why what was measured of other runs does not allow it, in words; none: it does.
        pending: which of the wanted cells are not current, where that is more than a look at their tables.
        live: whether it may begin while the stage that it reads still works.
        grid: the steps of its cells, as far as a run's spec tells them; none: all kept states. What is missing of them is
            shown as missing; a step that is known later is added when it is.
        priority: the larger, the earlier, where several are ready.
        pool: of Dagster's, that limits how many run at once.
    """

    name: str
    says: str
    scope: Scope
    outputs: tuple[Output, ...]
    wanted: Callable[[View], Cells]
    compute: Callable[[View, Sequence[int], Told], int]
    reads: tuple[str | Read, ...] = ()
    after: tuple[str, ...] = ()
    needs: frozenset[Need] = frozenset()
    spares: Callable[[RunSpec], frozenset[Need]] = lambda spec: frozenset()
    asked: Callable[[RunSpec], bool] = everybody
    refuses: Callable[[View], str | None] = lambda view: None
    pending: Callable[[View, Cells], list[Cell]] | None = None
    live: bool = False
    grid: Callable[[RunSpec], Iterable[int]] | None = None
    priority: int = 0
    pool: str | None = None

    def work(self, view: View, steps: Sequence[int] = (), told: Told = SILENT) -> int:
        """Computes, and keeps what it took (table `stage_costs`); stages of whole experiments are not measured."""
        if self.scope == Scope.EXPERIMENT:
            return self.compute(view, steps, told)
        with measured(view.store, self.name, view.specs, steps) as work:
            work.cells[view.spec.run] = self.compute(view, steps, told)
        return work.cells[view.spec.run]

    @property
    def assets(self) -> tuple[str, ...]:
        """Names of its assets."""
        return tuple(output.name for output in self.outputs)

    @property
    def tables(self) -> tuple[str, ...]:
        """All tables that it fills."""
        return tuple(table for output in self.outputs for table in output.tables)

    @property
    def inputs(self) -> tuple[Read, ...]:
        """What it reads."""
        return tuple(Read(each) if isinstance(each, str) else each for each in self.reads)

    def waiting(self, view: View) -> Cells:
        """The cells that are not current, with what they would be made from now."""
        if not self.is_asked(view):
            return {}
        wanted = self.wanted(view)
        late = pending_cells(view.store, wanted) if self.pending is None else self.pending(view, wanted)
        return {cell: wanted[cell] for cell in late}

    def is_asked(self, view: View) -> bool:
        """Whether any of the runs asks for it."""
        return any(self.asked(spec) for spec in view.specs)

    def lacks(self, view: View) -> str | None:
        """Why the run's checkpoints, or other runs, do not allow it, in words; none: they do."""
        if (reason := self.refuses(view)) is not None:
            return reason
        missing = sorted(self.needs - self.spares(view.spec) - view.found.brings) if self.needs else []
        if not missing:
            return None
        return f"needs {' and '.join(missing)}, which the checkpoints of run {view.spec.run} do not bring"
