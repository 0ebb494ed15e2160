"""Density models, and models that wrap other models."""
