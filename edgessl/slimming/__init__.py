"""Which channels live, the sliced pass, extraction and its proof of equivalence."""
