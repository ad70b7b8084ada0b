"""Files of other programs as the folders that `transformers` reads; the only modules of suites that load PyTorch."""
