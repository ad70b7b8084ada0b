"""From text to training sequences: corpora, tokenizer, examples, and which examples each update sees."""
