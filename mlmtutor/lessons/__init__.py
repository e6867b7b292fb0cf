"""What one lesson needs, under its number: its exercises and its figures."""
