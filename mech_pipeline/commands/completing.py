"""What a shell offers when somebody presses Tab: names that are there. `mech --install-completion` switches it on."""

from contextlib import suppress


def tables() -> list[str]:
    """Names of tables."""
    from mech_pipeline.store.tables.all import TABLES

    return list(TABLES)


def runs() -> list[str]:
    """Ids of the store's runs."""
    return _names("run")


def experiments() -> list[str]:
    """Names of experiments that have runs."""
    return _names("experiment")


def sides() -> list[str]:
    """Runs, arms and experiments: what `mech compare` takes."""
    return sorted({*_names("run"), *_names("experiment || '.' || arm"), *_names("experiment")})


def _names(what: str) -> list[str]:
    """Nothing, where the store cannot be asked: a shell that completes must not complain."""
    from mech_pipeline.commands.opening import existing_store
    from mech_pipeline.errors import MechError
    from mech_pipeline.store.reading.shared import reading

    with suppress(MechError, OSError), reading(existing_store().root, ["runs"]) as connection:
        return [name for (name,) in connection.execute(f"select distinct {what} from runs order by 1").fetchall()]
    return []
