"""The command line, a module per command. Doors: `main` (all commands), `arguments` (flags that commands share)."""
