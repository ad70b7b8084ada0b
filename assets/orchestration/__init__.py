"""What starts work in Dagster: the sensor of experiment files, the launch job, the sensor of waiting work, the nightly schedule."""
