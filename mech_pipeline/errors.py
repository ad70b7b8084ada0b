"""The one error type that people see: what is wrong, and the next step, in one line."""


class MechError(Exception):
    """A mistake or fault the user can act on.

    The command line prints it as one line on stderr and exits with 1; Dagster shows it as the failure.

    Args:
        problem: what was wrong, naming the thing, the value that came and the value that was expected.
        next_step: what to do about it, preferably a command to type.
    """

    def __init__(self, problem: str, next_step: str = "") -> None:
        self.problem = problem
        self.next_step = next_step
        super().__init__(f"{problem} → {next_step}" if next_step else problem)
