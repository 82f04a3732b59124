"""From what a person typed to a checked RGB picture."""
