"""Experiment trackers: loggers for the driver, and sessions for trainables."""
