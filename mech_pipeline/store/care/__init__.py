"""Every file against what was written, what to do about damage, and few files with short logs."""
