"""A model that answers by a rule that a test gives, to ask of readouts whether they tell it from other rules."""

import torch


class Answering(torch.nn.Module):
    """Three nats sure, at the last place, of the word that a rule makes of the text; any other word has logit 0.

    Args:
        rule: from a text to a word.
    """

    def __init__(self, rule, tokenizer):
        super().__init__()
        self.rule, self.tokenizer = rule, tokenizer

    def forward(self, tokens):
        logits = torch.zeros(*tokens.shape, self.tokenizer.get_vocab_size())
        for row, text in zip(logits, self.tokenizer.decode_batch(tokens.tolist()), strict=True):
            row[-1, self.tokenizer.encode(f" {self.rule(text)}").ids[0]] = 3.0
        return logits
