"""Which test files begin first: the longest, as measured, so that all processes of pytest-xdist end together.

Each file runs in one process (`--dist loadfile`): its tests share what they made.
"""

SLOWEST = (
    "whole/test_benchmarks.py",
    "whole/test_ui.py",
    "whole/test_orchestration.py",
    "whole/test_distributed.py",
    "whole/test_command_line.py",
    "store/test_verify.py",
    "whole/test_s3.py",
    "whole/test_deployment.py",
    "whole/test_sharded.py",
    "pipeline/test_pipeline.py",
    "pipeline/test_circuit_stage.py",
    "store/test_store.py",
    "whole/test_sql_docs.py",
    "store/test_maintain.py",
    "store/test_duckdb_versions.py",
    "pipeline/test_neuron_stage.py",
    "training/test_training_loop.py",
    "mechanisms/test_circuits.py",
    "pipeline/test_retraining_stage.py",
    "pipeline/test_influence_stage.py",
    "assets/test_dagster.py",
    "pipeline/test_tokens.py",
    "training/test_stack.py",
)
"""Files under tests/, the longest first; others follow in the order of their names."""
