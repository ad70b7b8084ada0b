"""Causes: which examples an arm treats otherwise, other examples like them, and what came of it."""
