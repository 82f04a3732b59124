"""How good captions are: `run.evaluate` scores them, `compare.compare` compares two results, `report` makes a page."""
