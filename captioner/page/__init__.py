"""The web page, a view a module. It uses what any program may use: `captioner.load`, `Captioner`, `DecodeOptions`."""
