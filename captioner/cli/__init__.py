"""The commands, one module each: `add_parser` declares its arguments, `run` does the work.

Modules here import torch and what stands on it inside `run`, so that parsing and `--help` are instant.
"""
