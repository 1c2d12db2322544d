"""How sweeps are run: the controller, the processes of trials, the journal."""
