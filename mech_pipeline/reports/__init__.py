"""What people look at: queries over the store, figures from their frames, one self-contained HTML report."""
