"""How far back influence reaches."""


def first_update(step: int, horizon: int | None) -> int:
    """The earliest update that a horizon of so many updates before a step reaches; none: the whole run.

    >>> first_update(1000, 200), first_update(100, 200), first_update(1000, None)
    (800, 0, 0)
    """
    return 0 if horizon is None else max(0, step - horizon)
