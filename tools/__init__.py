"""What makes the lessons, the site and the data: ``python -m tools.lessons`` and others."""
