"""Captions that people wrote: `captions.read_captions` reads them, `splits` divides them, `survey` examines them."""
