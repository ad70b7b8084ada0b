"""Automation of cheap assets: again when data that they read changed, and never because the same data were reported again.

Dagster's `eager` recomputes whenever an upstream event is written. Here only a new data version counts, and a result that
did not change stops the wave. Code that changed counts too. While upstream work is in flight nothing starts, so a
report is made once after a wave and not at each of its batches.
"""

import dagster as dg

_CONDITION = dg.AutomationCondition
_CHANGED = _CONDITION.any_deps_match(_CONDITION.data_version_changed()).with_label("data it reads changed")
# A change in the very tick after a request would be forgotten with the request: the tick after a change counts as well.
_JUST_CHANGED = (~_CHANGED).newly_true() & ~_CONDITION.missing()

ON_CHANGE = (
    (_CHANGED | _JUST_CHANGED | _CONDITION.code_version_changed()).since(_CONDITION.newly_requested())
    & ~_CONDITION.any_deps_match(_CONDITION.in_progress())
    & ~_CONDITION.in_progress()
).with_label("data or code changed, and nothing upstream is running")

automation = dg.AutomationConditionSensorDefinition(
    "automation",
    target=dg.AssetSelection.assets("experiment_report", "warehouse"),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=20,
)
