"""Consistent cuts through all tables, and SQL over them: `connect` for what users write, `reading` for the pipeline's own."""

from mech_pipeline.store.reading.connection import connect
from mech_pipeline.store.reading.shared import reading

__all__ = ["connect", "reading"]
