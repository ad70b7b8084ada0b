"""What happened: sums of the ledger."""
