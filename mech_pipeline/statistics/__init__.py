"""Statistics over runs, seeds and resamples: plain numbers in, plain numbers out."""
