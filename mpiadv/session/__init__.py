"""One run: set up, led, recorded, kept safe and shown."""
