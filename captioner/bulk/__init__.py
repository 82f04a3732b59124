"""Many pictures: captioned into files by `run`, or by many workers into shards by `cluster`."""
