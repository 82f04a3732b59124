"""The server: captions over HTTP, in three dialects.

Doors: `run` (start a server), `app` (the application), `gate` (who may ask, and how much), `service` (from a request's
pictures to answers), `batches` (requests that come together are encoded together), `messages` (what a request holds),
`plain`, `ollama` and `openai` (the routes of the three dialects).
"""
