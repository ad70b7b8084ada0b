"""What the UI tells of every asset before anything is made: whose it is, the tables it fills, their columns and units."""

import html
import os
from typing import Any

import dagster as dg

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.stages import STAGES
from mech_pipeline.store.tables.all import TABLES
from mech_pipeline.store.tables.table import Column

OWNER_VARIABLE = "MECH_OWNERS"
DEFAULT_OWNER = "team:researchers"


def described(definitions: dg.Definitions) -> dg.Definitions:
    """With owners and tables in every asset's description.

    Raises:
        MechError: MECH_OWNERS names somebody who is neither an e-mail address nor a team.
    """
    owned = owners()
    return definitions.map_resolved_asset_specs(
        func=lambda spec: spec.replace_attributes(owners=owned).merge_attributes(metadata=_tables(spec.key))
    )


def owners() -> list[str]:
    """From MECH_OWNERS, separated by commas: e-mail addresses or teams (`team:name`)."""
    named = [owner.strip() for owner in os.environ.get(OWNER_VARIABLE, DEFAULT_OWNER).split(",") if owner.strip()]
    wrong = [owner for owner in named if not owner.startswith("team:") and "@" not in owner]
    if wrong:
        raise MechError(
            f"{OWNER_VARIABLE} names {wrong[0]!r}, which Dagster does not take for an owner",
            f"write an e-mail address or team:name, such as {DEFAULT_OWNER}",
        )
    return named


def _tables(key: dg.AssetKey) -> dict[str, Any]:
    """Of assets that no stage has: nothing."""
    outputs = [o for stage in STAGES for o in stage.outputs if o.name == key.to_user_string() and o.table is not None]
    if not outputs:
        return {}
    shown = str(outputs[0].table)
    names = dict.fromkeys([shown, *outputs[0].tables])
    return {
        "dagster/table_name": shown,
        "dagster/column_schema": dg.TableSchema(columns=[_column(column) for column in TABLES[shown].all_columns]),
        "tables": dg.MetadataValue.md("\n".join(f"- `{name}`: {TABLES[name].meaning}" for name in names)),
    }


def _column(column: Column) -> dg.TableColumn:
    unit = f" ({column.unit})" if column.unit else ""
    return dg.TableColumn(
        name=column.name,
        type=column.type,
        description=html.escape(f"{column.meaning}{unit}", quote=False),  # the UI takes <run> for a tag
        constraints=dg.TableColumnConstraints(nullable=column.nullable),
    )
