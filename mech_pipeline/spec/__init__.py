"""What a researcher asks for: an experiment, resolved into runs, each with a fingerprint per stage."""
