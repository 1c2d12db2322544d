"""How training runs work inside: workers, their reports, their failures."""
