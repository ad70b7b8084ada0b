"""What would happen: the exact sweep back through training, and how far it can be trusted."""
