"""Hyperparameter sweeps with Ray Tune's API."""
