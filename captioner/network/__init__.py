"""The network, and its file: `model.py` computes, `checkpoint.py` saves and loads, `header.py` finds checkpoints."""
