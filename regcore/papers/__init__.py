"""What draws each table and figure of the five papers."""
