"""Custom models in torch."""
