"""Automation of cheap assets: again when data that they read changed, and never because the same data were reported again.

Dagster's `eager` recomputes whenever an upstream event is written. Here only a new data version counts, and a result that
did not change stops the wave. Code that changed counts too. While upstream work is in flight nothing starts, so a
report is made once after a wave and not at each of its batches.
"""

import dagster as dg

_CONDITION = dg.AutomationCondition
_CHANGED = _CONDITION.any_deps_match(_CONDITION.data_version_changed()).with_label("data it reads changed")

ON_CHANGE = (
    (_CHANGED | _CONDITION.code_version_changed()).since_last_handled()  # type: ignore[misc]  # Dagster's own types differ
    & ~_CONDITION.any_deps_match(_CONDITION.in_progress())
    & ~_CONDITION.in_progress()
).with_label("data or code changed, and nothing upstream is running")

automation = dg.AutomationConditionSensorDefinition(
    "automation",
    target=dg.AssetSelection.assets("experiment_report", "warehouse"),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=20,
)
