"""Prefect flows: thin skins on the chain."""
