"""The outside world as Dagster resources: where results are kept, and where experiments are described."""
