"""From a picture to sentences."""
