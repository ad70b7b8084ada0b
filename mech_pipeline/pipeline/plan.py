"""What is to be done for some runs, decided by looking: which stages are ready and not current.

A stage is ready when everything it reads is current, in its own run and in the runs that it names. Asking again after
each stage gives early cut-off: a stage that changed nothing leaves nothing to do after it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

from mech_pipeline.pipeline import stages
from mech_pipeline.pipeline.look import one_look
from mech_pipeline.pipeline.stage import Cells, Read, Scope, Stage, View
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

Node = tuple[str, str]
"""(stage, run), or (stage, experiment) of a stage of a whole experiment."""


Elsewhere = Callable[[str], tuple[RunSpec, str] | None]


@dataclass(frozen=True)
class State:
    """How a stage of a run stands.

    Attributes:
        cells: that are not current; it can make them now, unless it waits or is refused.
        waits_for: what it reads and is not current.
        refused: why it cannot be done, in words.
        along: the cells are of what the stage before has finished so far; it still works, and more will come.
    """

    cells: Cells = field(default_factory=dict)
    waits_for: tuple[Node, ...] = ()
    refused: str | None = None
    along: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether there is something to do, now."""
        return bool(self.cells) and (self.along or not self.waits_for) and self.refused is None

    @property
    def is_current(self) -> bool:
        """Whether there is nothing to do, now or later."""
        return not self.cells and not self.waits_for and self.refused is None

    @property
    def is_settled(self) -> bool:
        """Whether it is current, or will never be."""
        return self.is_current or self.refused is not None


class Plan:
    """The graph of stages over runs, as the store is now.

    Args:
        corpora: SHA-256 of each run's corpus.
        experiment: whose runs these are; none: stages of whole experiments are left out.
        live: beside a stage that works, also what can be done of what it has finished already.
        elsewhere: gives the spec and the corpus of a run that is read and is not one of these; none: nobody knows it.
    """

    def __init__(
        self,
        store: Store,
        specs: Iterable[RunSpec],
        corpora: Mapping[str, str],
        experiment: Experiment | None = None,
        *,
        live: bool = False,
        elsewhere: Elsewhere = lambda run: None,
    ) -> None:
        self._store, self._corpora, self._experiment = store, dict(corpora), experiment
        self._live, self._elsewhere = live, elsewhere
        self._specs = {spec.run: spec for spec in specs}
        self._known = dict(self._specs)
        self._states: dict[str, dict[str, State]] = {}  # by run, then by stage: the launcher asks run by run, and often
        self._views: dict[str, View] = {}
        self._given: dict[Node, Cells] = {}

    def look(self, *runs: str) -> None:
        """Looks again: at everything, or at some runs and all that reads them; other runs are not asked about."""
        stale = set(runs) | self._readers(runs) if runs else None
        self._states = {} if stale is None else {name: of for name, of in self._states.items() if name not in stale}
        self._views = {} if stale is None else {name: view for name, view in self._views.items() if name not in stale}
        experiments = [self._experiment.experiment] if self._experiment is not None else []
        everything = [*self._specs, *experiments]
        with one_look(everything) if stale is None else nullcontext():
            with one_look(everything if stale is None else self._asked_about(stale)):
                for name in self._specs:
                    for stage in self.stages_of_runs:
                        self.state(stage, name)
            with one_look(everything):  # it may ask about all runs; while some of them wait, it asks nothing
                for stage in self.stages_of_experiments:
                    self.state(stage, experiments[0])

    def ended(self, stage: str, name: str) -> None:
        """A stage of a run (or of the experiment) has just worked: until the next look, it is not handed out again."""
        node = stage, name
        states = self._states[name]
        self._given[node] = states[stage].cells
        states[stage] = State(waits_for=(node,))

    @property
    def stages_of_runs(self) -> list[Stage]:
        """Those that each run has."""
        return [stage for stage in stages.STAGES if stage.scope != Scope.EXPERIMENT]

    @property
    def stages_of_experiments(self) -> list[Stage]:
        """Those that the experiment has."""
        return [s for s in stages.STAGES if s.scope == Scope.EXPERIMENT] if self._experiment is not None else []

    def state(self, stage: Stage, name: str) -> State:
        """How a stage of a run (or of the experiment) stands."""
        states = self._states.setdefault(name, {})
        if stage.name not in states:
            waits_for_itself = State(waits_for=((stage.name, name),))
            states[stage.name] = waits_for_itself  # what reads itself, by whatever way, does so for ever
            states[stage.name] = self._find(stage, name)
        return states[stage.name]

    def ready(self, name: str) -> dict[str, Cells]:
        """Stages of a run (or of the experiment) that can work now, with the cells that wait for them."""
        return {stage: state.cells for stage, state in self._of(name).items() if state.is_ready}

    def refused(self, name: str) -> dict[str, str]:
        """Stages of a run that its checkpoints do not allow, with the reason."""
        return {stage: state.refused for stage, state in self._of(name).items() if state.refused is not None}

    def standing(self, name: str) -> str:
        """In a word, how a run (or the experiment) stands of which nothing is ready."""
        return "waits" if any(state.waits_for for state in self._of(name).values()) else "current"

    def _of(self, name: str) -> Mapping[str, State]:
        """How the stages of a run (or of the experiment) stand, as far as anybody looked."""
        return self._states.get(name, {})

    def _find(self, stage: Stage, name: str) -> State:
        view = self._view(stage, name)
        if not stage.is_asked(view):
            return State()
        read = [(node, self._at(node)) for each in stage.inputs for node in self._nodes(each, stage, name)]
        before = [(n, self._at(n)) for each in stage.after for n in self._nodes(Read(each), stage, name)]
        refusing = [(node, state.refused) for node, state in read if state.refused is not None]
        if refusing:
            (upstream, _), reason = refusing[0]
            return State(refused=f"reads {upstream}, which {reason}")
        waits = [node for node, state in read if not state.is_current]
        along = bool(waits) and all(self._goes_along(stage, node, name) for node in waits)
        waits += [node for node, state in before if not state.is_settled]
        if waits and not along:
            return State(waits_for=tuple(waits))
        if (lack := stage.lacks(view)) is not None:
            return State(refused=lack)
        cells = stage.waiting(view)
        return State(cells, tuple(waits), along=True) if along else self._moved_on(stage, name, cells)

    def _moved_on(self, stage: Stage, name: str, cells: Cells) -> State:
        """A stage that worked and left just what waited before would do so for ever."""
        if cells and self._given.get((stage.name, name)) == cells:
            return State(refused=f"still waits after it worked, with {len(cells)} cells as before; please report this")
        return State(cells)

    def _goes_along(self, stage: Stage, node: Node, name: str) -> bool:
        """Whether a stage may look at what another one of its run has finished so far."""
        return self._live and stage.live and node[1] == name and self._at(node).is_ready

    def _at(self, node: Node) -> State:
        stage, name = node
        if name not in self._known and (self._experiment is None or name != self._experiment.experiment):
            found = self._elsewhere(name)
            if found is None:
                return State(waits_for=(node,))  # nobody here will make it current
            self._known[name], self._corpora[name] = found
        return self.state(stages.stage_of(stage), name)

    def _nodes(self, read: Read, stage: Stage, name: str) -> list[Node]:
        """What a stage of a run reads: of the run, of others that it names, or of all runs."""
        if stage.scope == Scope.EXPERIMENT:
            of = stages.stage_of(read.stage).scope
            return [(read.stage, name)] if of == Scope.EXPERIMENT else [(read.stage, run) for run in self._specs]
        return [(read.stage, run) for run in (read.of(self._known[name]) if read.of is not None else [name])]

    def _readers(self, runs: Collection[str]) -> set[str]:
        """Runs, and the experiment, some stage of which reads one of the runs, by whatever way."""
        found, fresh = set[str](), set(runs)
        while fresh:
            fresh = {
                other
                for other, spec in self._specs.items()
                for stage in self.stages_of_runs
                for read in stage.inputs
                if read.of is not None and fresh & set(read.of(spec))
            } - {*found, *runs}
            found |= fresh
        return found | ({self._experiment.experiment} if self._experiment is not None else set())

    def _asked_about(self, names: Iterable[str]) -> list[str]:
        """Runs, and those that they read: whom a look at them asks the store about."""
        runs = self._specs.keys() & set(names)
        inputs = [(stage, each) for stage in self.stages_of_runs for each in stage.inputs]
        return sorted(runs | {of for run in runs for stage, each in inputs for _, of in self._nodes(each, stage, run)})

    def _view(self, stage: Stage, name: str) -> View:
        if name not in self._views:
            mine = tuple(self._specs.values()) if stage.scope == Scope.EXPERIMENT else (self._known[name],)
            self._views[name] = View(self._store, mine, self._corpora, self._experiment)
        return self._views[name]


def ready_stages(store: Store, spec: RunSpec, corpus_sha256: str) -> dict[str, int]:
    """Stages of a run that can work now, with the number of cells that are not current."""
    return {stage: len(cells) for stage, cells in ready_cells(store, spec, corpus_sha256).items()}


def ready_cells(
    store: Store,
    spec: RunSpec,
    corpus_sha256: str,
    *,
    live: bool = False,
    elsewhere: Elsewhere = lambda run: None,
) -> dict[str, Cells]:
    """Stages of a run that can work now, with the cells that wait for them.

    Args:
        live: beside training, also analysis of the checkpoints that are there already.
        elsewhere: see `Plan`.
    """
    plan = Plan(store, [spec], {spec.run: corpus_sha256}, live=live, elsewhere=elsewhere)
    plan.look()
    return plan.ready(spec.run)
