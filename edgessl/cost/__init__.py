"""What a network costs to run: multiply-accumulates, parameters."""
