"""Corpus → tokenizer → token shards → pool of examples and probe."""
