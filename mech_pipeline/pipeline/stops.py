"""Where a run ended before its last planned update, as the store has it: a row of `stops`, by a rule of its spec."""

from collections.abc import Sequence

from mech_pipeline.mechanisms.known import KNOWN
from mech_pipeline.pipeline.checkpoints import artifact_versions, training_fingerprint
from mech_pipeline.pipeline.look import among, answer_of
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

CODE_VERSION = "1"


def stop_fingerprint(store: Store, spec: RunSpec) -> str | None:
    """What the decision to stop is made from; none where no rule is asked for, or tokens are not made."""
    training = training_fingerprint(store, spec)
    if spec.training.stop is None or training is None:
        return None
    event, artifacts = spec.formation[0], artifact_versions(store, spec.run)
    assert event.mechanism is not None, "checked when the file was read"
    probe = [artifacts.get(name, "") for name in ("probe", "tokenizer", "corpus")]
    return fingerprint(
        "stop", CODE_VERSION, training, spec.training.stop, event, KNOWN.mechanisms[event.mechanism].version, probe
    )


def stopped_at(store: Store, spec: RunSpec) -> int | None:
    """The last state of a run that stopped by the rule that it has now; none: it did not, or not yet."""
    if spec.training.stop is None:
        return None
    found = answer_of(store, "stops", spec.run, lambda runs: _read_stops(store, runs))
    return found[0] if found is not None and found[1] == stop_fingerprint(store, spec) else None


def _read_stops(store: Store, runs: Sequence[str]) -> dict[str, tuple[int, str] | None]:
    with store.reading("stops", of=runs) as connection:
        rows = connection.execute(
            f"select run, step, input_fingerprint from stops where {among('run', runs)}", list(runs)
        ).fetchall()
    found: dict[str, tuple[int, str] | None] = dict.fromkeys(runs)
    return found | {run: (step, made_from) for run, step, made_from in rows}
