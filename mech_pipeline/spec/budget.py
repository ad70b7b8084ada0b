"""What an experiment may cost at most; it is refused before it starts if it would cost more."""

from pydantic import Field

from mech_pipeline.spec.stage import Stage


class Budget(Stage):
    """Limits; what is not named is not limited."""

    runs: int | None = Field(None, ge=1, description="arms × seeds")
    hours: float | None = Field(
        None, gt=0, description="of what is still to be done, runs one after another, on this machine"
    )
    gigabytes: float | None = Field(None, gt=0, description="of checkpoints and gradient tensors, 10⁹ bytes each")

    @property
    def limits_work(self) -> bool:
        """Whether it limits what has to be estimated."""
        return self.hours is not None or self.gigabytes is not None

    def check_runs(self, runs: int) -> None:
        """Refuses too many runs.

        Raises:
            ValueError: there are more.
        """
        if self.runs is not None and runs > self.runs:
            raise ValueError(f"budget.runs: {runs} runs (arms × seeds) are asked for, {self.runs} are allowed")
