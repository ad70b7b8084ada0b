"""Precursors: signals that know no mechanism, and how well they announce a behaviour at a stated rate of false alarms."""
