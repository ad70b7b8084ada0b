"""What formed that nobody named: probe tokens and their loss changes, atoms of updates, what is found in them."""
