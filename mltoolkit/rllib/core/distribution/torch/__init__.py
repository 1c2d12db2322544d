"""Action distributions in torch, at RLlib's path."""
