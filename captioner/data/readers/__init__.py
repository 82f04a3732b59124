"""One module for each kind of captions file: `lines`, `columns`, `documents` and `folders`; `captions.py` chooses."""
