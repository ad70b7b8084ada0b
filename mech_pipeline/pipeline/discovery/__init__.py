"""What formed that nobody named: probe tokens, their loss changes window by window, what is found in them."""
