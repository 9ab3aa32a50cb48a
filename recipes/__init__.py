"""Recipes that ship with the package: values only."""
