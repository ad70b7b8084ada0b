"""Which assets a stage of a run materializes; the stages are those of `pipeline/plan.py`."""

BY_RUN = {
    "spec": ("run_spec", "tokens"),
    "training": ("training_run",),
    "formation": ("formation",),
    "compaction": ("compaction",),
}
"""Stages of a whole run."""

BY_STEP = {
    "analysis": ("mechanism_values", "head_scores", "gradients"),
    "circuits": ("circuits",),
    "neurons": ("neurons",),
    "ledger": ("ledger",),
    "influence": ("influence", "reliability"),
    "retraining": ("retrainings", "lds"),
}
"""Stages of ranges of checkpoints."""
