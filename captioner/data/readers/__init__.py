"""One module for each kind of captions file: `lines`, `columns` and `documents`; `captions.read_captions` chooses."""
