"""Whether the parts of a run's spec fit each other, and what is asked can be had of it; every refusal names what to do."""

from mech_pipeline.spec.intervention import check_interventions
from mech_pipeline.spec.mixture import check_mixture
from mech_pipeline.spec.run_parts import RunParts

VECTOR_WIDTH = 32
"""Numbers that PyTorch's widest CPU kernels take at a time; what is left over goes through other code."""


def check_run(spec: RunParts) -> None:
    """All its parts fit each other.

    Raises:
        ValueError: they do not.
        MechError: a share or weight of the mixture does not fit the corpus.
    """
    spec.optimizer.check_horizon(spec.optimizer.horizon or spec.training.steps)
    spec.checkpoints.check_number(spec.training.steps)
    check_mixture(spec.data.mixture, spec.data.shares(), spec.corpus.parts)
    if spec.imported is None:  # else `resolve` asks, when it is known which revisions there are, and of which model
        check_asked(spec)
    for check in (
        _check_adaptive,
        _check_ways_to_train,
        _check_accounts,
        _check_in_training,
        _check_interventions,
        _check_formation,
        _check_stop,
        _check_on_alarm,
        _check_parts,
    ):
        check(spec)


def _check_adaptive(spec: RunParts) -> None:
    """Checkpoints follow a mechanism that is measured."""
    watched = spec.checkpoints.adaptive.mechanism if spec.checkpoints.adaptive else None
    if watched is not None and watched not in spec.mechanisms:
        allowed = ", ".join(spec.mechanisms)
        raise ValueError(f"checkpoints.adaptive: mechanism {watched!r} is not among the experiment's: {allowed}")


def _check_ways_to_train(spec: RunParts) -> None:
    """Stacks and shards keep the bits."""
    has_mlp = spec.model.family != "native" or spec.model.d_mlp is not None
    if spec.training.stacked and has_mlp and spec.model.mlp_width % VECTOR_WIDTH:
        raise ValueError(
            f"stacked runs need d_mlp in multiples of {VECTOR_WIDTH}, got {spec.model.mlp_width}: the end of a tensor "
            "is rounded another way, and bits would depend on the stack"
        )
    if spec.training.sharded and not spec.optimizer.linear:
        raise ValueError("sharded runs cannot use muon, which needs whole matrices; use adamw")


def _check_accounts(spec: RunParts) -> None:
    """What takes updates apart meets updates that can be."""
    for what, wanted, refused in (
        ("ledger", spec.accounts, spec.training.precision == "bf16" or not spec.optimizer.linear),
        ("influence", spec.influence.mechanisms, not spec.optimizer.linear),
        ("discovery", spec.discovery.atoms, spec.training.precision == "bf16" or not spec.optimizer.linear),
    ):
        if wanted and refused:
            reasons = "; ".join(spec.caveats())
            raise ValueError(f"{what} of run {spec.run}: {reasons}; take its arm out of `{what}.arms`")


def check_asked(spec: RunParts) -> None:
    """What is asked of single states and windows can be had of this run and its model.

    Raises:
        ValueError: it cannot.
    """
    _check_targets(spec)
    _check_neurons(spec)
    _check_windows(spec)


def _check_targets(spec: RunParts) -> None:
    """Influence is swept back from kept states."""
    if not spec.influence.mechanisms or isinstance(spec.influence.at, str):
        return
    if spec.imported is not None:
        if unknown := [step for step in spec.influence.at if step not in spec.imported.found_steps]:
            raise ValueError(
                f"influence.at: run {spec.run} has no revision of step {unknown[0]}; choose one that it has"
            )
        return
    possible = set(spec.checkpoints.possible(spec.training.steps))
    for step in spec.influence.at:
        if step <= 0 or step not in possible:
            raise ValueError(
                f"influence.at: run {spec.run} keeps no state at step {step}; choose a step of its checkpoint plan, "
                f"or add it with checkpoints.extra: [{max(step, 1)}]"
            )


def _check_neurons(spec: RunParts) -> None:
    """The model has neurons, and its updates can be taken apart."""
    if not spec.neurons.windows:
        return
    if spec.model.family == "native" and spec.model.d_mlp is None:
        raise ValueError(f"neurons: the model of run {spec.run} has no MLP; set model.d_mlp, or leave neurons out")
    if spec.training.precision == "bf16" or not spec.optimizer.linear:
        raise ValueError(f"neurons of run {spec.run}: {'; '.join(spec.caveats())}; take its arm out of neurons.arms")


def _check_windows(spec: RunParts) -> None:
    """Windows begin and end where states are."""
    grid = set(spec.checkpoint_steps())
    for field, windows in (("neurons", spec.neurons.windows), ("readouts", spec.readouts.windows)):
        for step in [step for window in windows for step in window]:
            if step not in grid and spec.imported is not None:
                raise ValueError(
                    f"{field}.windows: run {spec.run} has no revision of step {step}; choose one that it has"
                )
            if step not in grid:
                raise ValueError(
                    f"{field}.windows: run {spec.run} plans no checkpoint at step {step}; choose one of its plan, or add it "
                    f"with checkpoints.extra: [{step}]"
                )


def _check_in_training(spec: RunParts) -> None:
    """Scores come from hooks on one process's own backward."""
    training = spec.training
    ways = {
        "stacked": training.stacked,
        "compile": training.compile,
        "sharded": training.sharded,
        "several processes": training.processes > 1,
        "muon": not spec.optimizer.linear,
        "bf16": training.precision == "bf16",
    }
    if spec.in_training.mechanisms and any(ways.values()):
        raise ValueError(
            f"in_training of run {spec.run}: not with {next(w for w, used in ways.items() if used)}; "
            "take its arm out of in_training.arms"
        )


def _check_interventions(spec: RunParts) -> None:
    """Held parts are there, in a forward pass that hooks see; and nobody accounts for updates that compute otherwise."""
    if not spec.interventions:
        return
    if spec.imported is not None:
        raise ValueError(f"intervene of run {spec.run}: its states come from outside and are not trained here")
    check_interventions(spec.interventions, spec.model, spec.training.steps)
    ways = ("stacked", "compile", "sharded")
    if used := [way for way in ways if getattr(spec.training, way)]:
        raise ValueError(f"intervene of run {spec.run}: not with training.{used[0]}; leave that out of its arm")
    at_mean = [each for each in spec.interventions if each.at_mean]
    if at_mean and (spec.training.micro_batches > 1 or spec.weighted):
        raise ValueError(
            f"intervene of run {spec.run}: {at_mean[0].words}, and the mean is over a whole batch in which examples count "
            "alike; not with micro_batches or weights of examples"
        )
    accounts = {
        "ledger": bool(spec.accounts),
        "influence": bool(spec.influence.mechanisms),
        "in_training": bool(spec.in_training.mechanisms),
        "neurons": bool(spec.neurons.windows),
        "discovery": spec.discovery.atoms > 0,
    }
    if asked := [name for name, wanted in accounts.items() if wanted]:
        raise ValueError(
            f"{asked[0]} of run {spec.run}: {spec.interventions[0].words}, and accounts of single examples are made with "
            f"the model as it is; take its arm out of `{asked[0]}.arms`"
        )


def _check_formation(spec: RunParts) -> None:
    """An event can still come when it begins to count; of a run from outside the last step is not known yet."""
    for event in spec.formation:
        if spec.imported is None and event.after > spec.training.steps:
            raise ValueError(
                f"formation: {event.signal} counts from step {event.after} on, and run {spec.run} ends at "
                f"{spec.training.steps}; take a smaller `after`"
            )


def _check_stop(spec: RunParts) -> None:
    """The rule watches a mechanism, and nothing is asked of steps that may never come."""
    stop, training = spec.training.stop, spec.training
    if stop is None:
        return
    if spec.imported is not None:
        raise ValueError(f"training.stop: the states of run {spec.run} come from outside and are not trained here")
    if spec.formation[0].mechanism is None:
        raise ValueError("training.stop watches the first formation event, which must be of a mechanism")
    if spec.in_training.mechanisms:
        raise ValueError(f"training.stop: not with in_training of run {spec.run}, which listens to the same model")
    if training.processes > 1 or training.sharded:
        raise ValueError("training.stop: a run of several processes cannot stop early; train it in one")
    if stop.hopeless is not None and stop.hopeless.at > training.steps:
        raise ValueError(f"training.stop.hopeless.at: {stop.hopeless.at} is after the last of {training.steps} updates")
    fixed = {
        "influence.at": bool(spec.influence.mechanisms) and spec.influence.at != "formation",
        "neurons": bool(spec.neurons.windows),
    }
    if asked := [name for name, wanted in fixed.items() if wanted]:
        raise ValueError(f"training.stop: {asked[0]} of run {spec.run} names steps that a stopped run may not reach")


def _check_on_alarm(spec: RunParts) -> None:
    """Listening needs a training of one process, which can be left between two updates."""
    if not spec.on_alarm.asks:
        return
    if spec.imported is not None:
        raise ValueError(f"signals.on_alarm: the states of run {spec.run} come from outside and are not trained here")
    if spec.in_training.mechanisms:
        raise ValueError(f"signals.on_alarm: not with in_training of run {spec.run}, which listens to the same model")
    if spec.checkpoints.adaptive is not None:
        raise ValueError(
            "signals.on_alarm: not with checkpoints.adaptive, which says afterwards what the checkpoint before is"
        )
    if spec.training.processes > 1 or spec.training.sharded:
        raise ValueError("signals.on_alarm: a run of several processes cannot be held; train it in one")


def _check_parts(spec: RunParts) -> None:
    named, parts = set(spec.data.part_shares), set(spec.corpus.parts)
    if named and named != parts:
        raise ValueError(
            f"data.part_shares names {', '.join(sorted(named))}; the parts of the corpus are "
            f"{', '.join(sorted(parts)) or 'none'}"
        )
