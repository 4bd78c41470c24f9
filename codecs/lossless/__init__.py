"""Pictures and sound to the last bit."""
