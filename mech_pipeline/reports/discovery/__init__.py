"""What formed that nobody named: a card for each cluster of tokens, their curves, and a map; atoms of updates."""
