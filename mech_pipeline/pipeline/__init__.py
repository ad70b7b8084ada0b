"""One module per stage: which cells are wanted, from what they are made, and the computation that fills them.

Each stage asks the store what is current (`store/currency.py`) and computes only the rest, so calling one twice costs a
lookup. Dagster assets and `mech run` both go through these functions; nothing here knows Dagster.
"""
