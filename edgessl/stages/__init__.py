"""Stages: recipe and artifacts in, artifacts and ledger rows out. The only place rooms meet."""
