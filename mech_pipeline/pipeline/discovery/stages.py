"""The stages `movement` (what every component did to every probe token's loss), `discovery` (what formed in them) and `atoms`."""

from collections.abc import Sequence

from mech_pipeline.pipeline.discovery import wanted
from mech_pipeline.pipeline.needs import REPLAY, Need
from mech_pipeline.pipeline.stage import FIRST_ROWS, Output, Scope, Stage, Told, View, always
from mech_pipeline.progress import Progress


def _compute_movement(view: View, steps: Sequence[int], told: Told) -> int:
    from mech_pipeline.pipeline.discovery.movement import compute_movement

    run = view.opened
    late = wanted.pending_movement(run, steps)
    report = Progress(told.emit, f"movement {run.spec.run}", len(late), "windows")
    return compute_movement(run, steps, told.on_steps, report, told.emit)


def _compute_discovery(view: View, steps: Sequence[int], told: Told) -> int:
    from mech_pipeline.pipeline.discovery.discovery import compute_discovery
    from mech_pipeline.pipeline.discovery.needs import compute_needs

    run = view.opened
    if run.spec.discovery.moves:
        return compute_discovery(run)
    report = Progress(told.emit, f"needs {run.spec.run}", len(run.planned), "checkpoints")
    return compute_needs(run, report, told.emit)


def _compute_atoms(view: View, steps: Sequence[int], told: Told) -> int:
    from mech_pipeline.pipeline.discovery.atoms import compute_atoms

    run = view.opened
    report = Progress(told.emit, f"atoms {run.spec.run}", len(wanted.windows(run)), "windows")
    return compute_atoms(run, report, told.emit)


MOVEMENT = Stage(
    "movement",
    "What the movement of every component did to the loss of every probe token.",
    Scope.CHECKPOINT,
    (
        Output(
            "token_movement",
            "Loss changes of held-out tokens since the previous checkpoint, by component; they sum to what was measured. "
            "With 512 tokens some twelve updates' time for each update, three with path: chord.",
            ("token_movement", "token_losses"),
            always(wanted.MOVEMENT_VERSION),
            inputs=("checkpoint",),
            group="discovery",
            rows="select step, component, avg(value) as mean_change, min(value) as most_gained from token_movement where "
            "run = $run and step in $$ group by step, component "
            f"qualify row_number() over (partition by step order by avg(value)) <= {FIRST_ROWS} order by step, mean_change",
        ),
    ),
    asked=lambda spec: spec.discovery.moves,
    grid=lambda spec: spec.checkpoints.possible(spec.training.steps)[1:],
    wanted=lambda view: wanted.wanted_movement(view.found, view.found.planned),
    pending=lambda view, cells: wanted.pending_movement(view.found, view.found.planned),
    compute=_compute_movement,
    reads=("training",),
    needs=REPLAY,
    priority=15,
    pool="gpu_analysis",
)

DISCOVERY = Stage(
    "discovery",
    "What formed in a run that nobody named: clusters of probe tokens, ranked.",
    Scope.RUN,
    (
        Output(
            "discoveries",
            "Clusters of tokens whose losses took the same course, when they fell, and whether it is a discovery. Seconds; by "
            "needs, clusters of tokens that need the same heads and MLPs: some minutes.",
            ("discovery_tokens", "discoveries", "cluster_courses"),
            always(wanted.DISCOVERY_VERSION),
            inputs=("token_movement", "checkpoint"),
            group="discovery",
            shows="discoveries",
            rows="select cluster, is_discovery, tokens, step, half_step, looking, drop, components from discoveries "
            "where run = $run order by cluster",
        ),
    ),
    asked=lambda spec: spec.discovery.tokens > 0,
    wanted=lambda view: wanted.wanted_discovery(view.found),
    compute=_compute_discovery,
    reads=("movement", "training"),
    needs=REPLAY,
    spares=lambda spec: frozenset() if spec.discovery.moves else REPLAY - {Need.WEIGHTS},
    priority=14,
)

ATOMS = Stage(
    "atoms",
    "Groups of examples that moved the weights alike, without a mechanism or a probe.",
    Scope.RUN,
    (
        Output(
            "atoms",
            "Groups of examples whose parts in the applied updates point the same way, window by window, and which go on. "
            "Some 2.1 to 2.4 times the time of training in the demo.",
            ("atom_windows", "atoms", "atom_examples", "atom_tracks"),
            always(wanted.ATOMS_VERSION),
            inputs=("checkpoint",),
            group="discovery",
            shows="atom_tracks",
            rows="select track, birth, peak, death, windows, coherence, by_chance, components from atom_tracks "
            "where run = $run order by windows desc, coherence desc",
        ),
    ),
    asked=lambda spec: spec.discovery.atoms > 0,
    wanted=lambda view: wanted.wanted_atoms(view.found),
    compute=_compute_atoms,
    reads=("training",),
    needs=REPLAY,
    priority=13,
    pool="gpu_analysis",
)
