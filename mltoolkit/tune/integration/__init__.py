"""Callbacks that report to a sweep from other libraries' training loops."""
