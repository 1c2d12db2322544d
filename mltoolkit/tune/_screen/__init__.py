"""What a sweep shows while it runs: its state, kept up to date at little cost, and the views of it."""
