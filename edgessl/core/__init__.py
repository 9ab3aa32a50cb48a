"""Recipes, artifacts, the ledger, measurements, errors: no torch, no runtime."""
