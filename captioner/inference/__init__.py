"""From a picture to sentences.

Doors: `captioner` (load, Captioner, PictureEncoder), `results` (Caption, FileResult), `decoding` and its `rules`.
"""
