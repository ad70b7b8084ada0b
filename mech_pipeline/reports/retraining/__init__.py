"""Predictions beside what retraining measured."""
