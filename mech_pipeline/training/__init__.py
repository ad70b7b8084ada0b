"""Training that can be replayed bit for bit: model, flat state, pure optimizer updates, checkpoints."""
