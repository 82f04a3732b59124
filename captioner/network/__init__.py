"""The network, and the file it is kept in."""
