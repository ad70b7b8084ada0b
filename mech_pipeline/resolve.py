"""From an experiment to runs that can be computed: names looked up, files read, once, where a program begins.

`Experiment` says what is asked for and touches nothing. `resolve` finds the mechanisms and detectors that it names,
checks that every model has what they look at, and fills in what files hold: the tokenizer, weights of examples, the
checkpoint that training starts from. Whoever has a `Resolved` passes it on; its `runs()` cost nothing.
"""

from pathlib import Path
from typing import Any

from pydantic import PrivateAttr

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.data.pretrained import resolved_tokenizer
from mech_pipeline.data.weights_file import weights_sha256
from mech_pipeline.errors import MechError, did_you_mean
from mech_pipeline.mechanisms.known import KNOWN
from mech_pipeline.signals.registry import signal_names
from mech_pipeline.spec.experiment import Experiment, Names, load_experiment
from mech_pipeline.spec.imported import Imported
from mech_pipeline.spec.initial import initial_sha256
from mech_pipeline.spec.run import RunSpec


class Resolved(Experiment):
    """An experiment whose runs say what the files that they name hold."""

    _specs: tuple[RunSpec, ...] = PrivateAttr(())

    def runs(self) -> tuple[RunSpec, ...]:
        """Every run of every arm, as it was resolved."""
        return self._specs


def read_experiment(path: Path, home: Path | None = None, store: str | None = None) -> Resolved:
    """An experiment file, resolved; see `resolve`.

    Raises:
        MechError: the file is missing or wrong, or names something that is not there.
    """
    return resolve(load_experiment(path, known_names()), home, source=str(path), store=store)


def known_names() -> Names:
    """The mechanisms and detectors that an experiment can ask for."""
    return {"mechanisms": KNOWN.mechanisms, "detectors": KNOWN.detectors}


def resolve(
    experiment: Experiment, home: Path | None = None, *, source: str = "experiment", store: str | None = None
) -> Resolved:
    """Looks up what an experiment names; reads each file once.

    Args:
        home: folder that relative names of files begin at; default: the current one.
        source: where the experiment is written, for errors.
        store: root of the store; a run from outside whose place is not there is read from it, if it holds the states.

    Raises:
        MechError: an unknown mechanism or detector, a model without what a mechanism looks at, a file that cannot be read.
    """
    _check_names(experiment, source)
    specs = tuple(_with_contents(spec.at(home or Path.cwd()), store) for spec in experiment.runs())
    _check_requirements(specs, source)
    fields = {name: getattr(experiment, name) for name in Experiment.model_fields}
    resolved = Resolved.model_construct(_fields_set=set(experiment.model_fields_set), **fields)
    resolved._specs = specs
    return resolved


def corpus_hashes(specs: tuple[RunSpec, ...]) -> dict[str, str]:
    """SHA-256 of the corpus of each run; runs with one corpus read it once."""
    known: dict[str, str] = {}
    for spec in specs:
        key = spec.corpus.model_dump_json()
        if key not in known:
            known[key] = corpus_sha256(read_corpus(spec.corpus))
    return {spec.run: known[spec.corpus.model_dump_json()] for spec in specs}


def _check_names(experiment: Experiment, source: str) -> None:
    asked = [(field, getattr(experiment, field), known) for field, known in known_names().items()]
    for field, names, known in (*asked, ("signals.measure", experiment.signals.measure, signal_names())):
        for name in names:
            if name not in known:
                allowed = ", ".join(sorted(known))
                raise MechError(
                    f"{source}: experiment: {field}: unknown name {name!r}; {did_you_mean(name, known)}"
                    f"allowed: {allowed}",
                    "fix that field and run again",
                )


def _with_contents(spec: RunSpec, store: str | None) -> RunSpec:
    """With the content hashes of the files that it names."""
    if spec.imported is not None:
        spec = _from_outside(spec, spec.imported, store)
    found: dict[str, Any] = {"tokenizer": resolved_tokenizer(spec.tokenizer, packed=spec.data.packed > 0)}
    if spec.data.weights is not None:
        sha256 = weights_sha256(spec.data.weights, spec.home)
        found["data"] = spec.data.model_copy(update={"weights_sha256": sha256})
    if spec.model.init_from is not None:
        sha256 = initial_sha256(spec.model.init_from, spec.home)
        found["model"] = spec.model.model_copy(update={"init_sha256": sha256})
    return spec.model_copy(update=found)


def _from_outside(spec: RunSpec, imported: Imported, store: str | None) -> RunSpec:
    """With what its place says of it, or, where that is not there, a store that holds its states."""
    from mech_pipeline.exchange.suites.described import described  # json and files alone, and seldom needed

    try:
        return described(spec, imported)
    except MechError:
        from mech_pipeline.pipeline.without_place import spec_without_place
        from mech_pipeline.store.store import Store

        kept = None if store is None else spec_without_place(Store(store), spec)
        if kept is None:
            raise
        return kept


def _check_requirements(specs: tuple[RunSpec, ...], source: str) -> None:
    """Every run's model must have the heads and neurons that its mechanisms look at, and the states that it is asked about."""
    for spec in specs:
        try:
            spec.check_asked()
        except ValueError as error:
            raise MechError(f"{source}: {error}", "change what is asked of it") from error
        for name in spec.measured:
            if missing := KNOWN.missing(name, spec.model):
                raise MechError(
                    f"{source}: mechanism {name} of run {spec.run} {missing}", "change `model` or the mechanism"
                )
        for name in spec.circuits.mechanisms:
            _check_circuit(name, spec, source)


def _check_circuit(name: str, spec: RunSpec, source: str) -> None:
    """Patching needs corrupted data, and a key and a value for each head."""
    if not KNOWN.mechanisms[name].corrupted:
        able = sorted(known for known, facts in KNOWN.mechanisms.items() if facts.corrupted)
        raise MechError(
            f"{source}: circuits: mechanism {name} has no corrupted data to patch with; these have: {', '.join(able)}",
            "choose one of them, or give it `corrupted` (docs/mechanisms.md)",
        )
    if spec.model.key_value_heads != spec.model.heads:
        raise MechError(
            f"{source}: circuits of run {spec.run} need a key and a value for each head; its heads share them",
            "leave out model.kv_heads, or take its arm out of circuits.arms",
        )
