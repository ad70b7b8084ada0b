"""From mechanisms to data: the ledger (what happened) and influence (what would happen). Never mixed up."""
