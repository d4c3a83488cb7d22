"""Recipes that ship with the package: whole training runs, one YAML file each."""
