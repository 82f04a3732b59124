"""Pictures, from what a person typed to checked RGB: `find.py` finds them, `load.py` reads them.

`unfamiliar.py` draws pictures that are no ordinary photographs.
"""
