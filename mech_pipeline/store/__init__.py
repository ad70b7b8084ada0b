"""Everything that is kept: Delta tables for rows, safetensors blobs for tensors, DuckDB views for reading."""
