"""Signals: their values at checkpoints, and how well they announce an event."""
