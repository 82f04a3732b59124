"""Many pictures: captioned, kept through kills, and written."""
