"""What formed here that nobody named: loss changes of probe tokens, clustered; atoms of updates."""
