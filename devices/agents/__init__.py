"""Programs that are copied to a board: standard library and one runtime, nothing of edgessl."""
