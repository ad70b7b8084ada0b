"""What formed here that nobody named: loss changes of probe tokens by component, clustered over training."""
