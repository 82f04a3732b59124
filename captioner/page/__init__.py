"""The web page. `main.py` draws the frame, and `views/` holds a module for each view.

The page uses what any program may use: `captioner.load`, `Captioner` and `DecodeOptions`.
"""
