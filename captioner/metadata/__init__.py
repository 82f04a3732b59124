"""What files hold of captions: `sidecars.py` and `embedded.py` read and write it, and tell what a person changed."""
