"""Experiment files in a folder: which there are, and which one describes an experiment."""

from pathlib import Path

from mech_pipeline.errors import MechError, did_you_mean
from mech_pipeline.spec.experiment import load_experiment


def experiment_files(folder: Path) -> list[Path]:
    """All of them, sorted; whether they can be read is not looked at."""
    return sorted(folder.glob("*.y*ml"))


def named_in(path: Path) -> str:
    """The experiment that a file describes; of a file that cannot be read, the file's own name."""
    try:
        return load_experiment(path).experiment
    except MechError:
        return path.stem


def file_of(experiment: str, folder: Path) -> Path:
    """The file that describes an experiment; mistakes in other files do not matter.

    Raises:
        MechError: none does, or the file of that name has a mistake.
    """
    names: list[str] = []
    for path in experiment_files(folder):
        try:
            found = load_experiment(path).experiment
        except MechError:
            if path.stem == experiment:
                raise
            continue
        if found == experiment:
            return path
        names.append(found)
    raise MechError(
        f"no file in {folder} describes experiment {experiment!r}",
        f"{did_you_mean(experiment, names)}they describe {', '.join(names) or 'nothing'}",
    )
