"""Training loop, optimisers, schedules, checkpoints."""
