"""Training of hash-coded encoders: towers, heads, losses, data, loop, evaluation. Runs on a workstation, never on a recorder."""
