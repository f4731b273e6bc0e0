"""What is stored: the tables, their specifications, and reading them by SQL."""
