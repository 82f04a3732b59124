"""Captions that people wrote."""
