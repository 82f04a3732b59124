"""The command line, one module per command: `add_parser` declares its flags, `run` calls Python and prints.

Doors: `main` (all commands), `arguments` (flags that commands share). Modules here import torch, and whatever needs it,
inside `run` only, so that `--help` is instant.
"""
