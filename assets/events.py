"""One event per finished partition, written by hand, with the provenance that Dagster's stale marks read.

Dagster's own events carry one shared data version for a whole batch and record nothing when a batch dies half-way.
This is the only module that uses Dagster's private names; `tests/assets/test_dagster.py` pins their meaning.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.events import DagsterEvent, DagsterEventBatchMetadata, generate_event_batch_id

from mech_pipeline.assets.partitions import partition
from mech_pipeline.pipeline.cells import partition_version, stored_versions
from mech_pipeline.progress import Emit, Said
from mech_pipeline.store import delta
from mech_pipeline.store.store import Store

Context = dg.AssetExecutionContext | dg.OpExecutionContext
"""Of an asset, or of an op that reports assets beside it."""
_sinks: list[Emit] = []
_PAGE = 1000


def add_sink(sink: Emit) -> None:
    """Also sends every progress line of this process to `sink` (the terminal of `mech run`)."""
    _sinks.append(sink)


def emitter(context: Context) -> Emit:
    """Progress lines for an asset body: to Dagster's log and to the sinks."""

    def emit(said: Said) -> None:
        context.log.info(str(said))
        for sink in _sinks:
            sink(said)

    return emit


def stored_in(store: Store, table: str) -> dict[str, str]:
    """Where an asset's rows are, and the version to read again with `mech sql --version`."""
    return {
        "dagster/table_name": table,
        "dagster/uri": store.files.url(delta.folder(table)),
        "delta version": f"{table}={delta.latest_version(store.files, table)}",
    }


class PartitionEvents:
    """Reports finished partitions of one asset.

    Args:
        asset: the asset whose partitions are reported; it need not be the one that runs.
        inputs: for each input asset, how a partition of `asset` names the partition of the input.
        partitions: all partitions that may be reported; their inputs' latest versions are read in one query each.
    """

    def __init__(
        self,
        context: Context,
        asset: str,
        code_version: str,
        inputs: Mapping[str, Callable[[str], str]],
        partitions: Sequence[str],
    ) -> None:
        self._context = context
        self._key = dg.AssetKey(asset)
        self._code_version = code_version
        self._inputs = inputs
        self._records = {
            name: _latest_records(context.instance, name, sorted({to_input(p) for p in partitions}))
            for name, to_input in inputs.items()
        }
        self._together: list[dg.AssetMaterialization] | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Writes what is reported in its block in one go when the block ends, also when it ends by an exception.

        Twenty times as fast on Postgres, with DAGSTER_EVENT_BATCH_SIZE set; one by one elsewhere. Made for rows that one
        commit of the store has published: a process killed in the block leaves what it would leave between commit and
        event, and the next materialization reports it. After the block, all is written.
        """
        assert self._together is None, "blocks do not nest"
        self._together = []
        try:
            yield
        finally:
            collected, self._together = self._together, None
            self._write(collected)

    def _write(self, events: Sequence[dg.AssetMaterialization]) -> None:
        step, batch = self._context.get_step_execution_context(), generate_event_batch_id()
        for number, event in enumerate(events, start=1):
            DagsterEvent.asset_materialization(step, event, DagsterEventBatchMetadata(batch, number == len(events)))

    def report(self, key: str, data_version: str, metadata: Mapping[str, Any]) -> None:
        """One materialization of one partition; written at once, or at the end of a block of `together`."""
        tags = {
            DATA_VERSION_TAG: data_version,
            DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
            CODE_VERSION_TAG: self._code_version,
        }
        for name, to_input in self._inputs.items():
            record = self._records[name].get(to_input(key))
            version = extract_data_version_from_entry(record.event_log_entry) if record else None
            source = dg.AssetKey(name)
            tags[get_input_data_version_tag(source)] = version.value if version else DEFAULT_DATA_VERSION.value
            tags[get_input_event_pointer_tag(source)] = str(record.storage_id) if record else NULL_EVENT_POINTER
        event = dg.AssetMaterialization(self._key, partition=key, metadata=dict(metadata), tags=tags)
        if self._together is None:
            self._context.log_event(event)
        else:
            self._together.append(event)

    def report_stored(
        self, store: Store, table: str, run: str, steps: Sequence[int], shown: Mapping[int, Mapping[str, Any]]
    ) -> None:
        """Steps whose rows one commit has just published in a table.

        Args:
            shown: what the UI shows of each step, beside where its rows are.
        """
        stored, place = stored_versions(store, table, run), stored_in(store, table)
        with self.together():
            for step in steps:
                version = partition_version(stored, step)
                assert version is not None, "a step is reported after its rows are stored"
                self.report(partition(run, step), version, {"step": step, **shown.get(step, {}), **place})


def _latest_records(instance: dg.DagsterInstance, asset: str, partitions: list[str]) -> dict[str, Any]:
    """The newest materialization of each partition of an asset."""
    records_filter = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=partitions)
    newest: dict[str, Any] = {}
    cursor: str | None = None
    while len(newest) < len(partitions):
        page = instance.fetch_materializations(records_filter, limit=_PAGE, cursor=cursor)  # newest first
        for record in page.records:
            if record.partition_key is not None:
                newest.setdefault(record.partition_key, record)
        if not page.has_more:
            break
        cursor = page.cursor
    return newest
