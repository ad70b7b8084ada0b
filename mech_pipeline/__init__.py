"""Training process transparency: which training data made this mechanism, when, and how do we know?"""

__version__ = "0.1.0"
