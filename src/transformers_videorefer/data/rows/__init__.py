"""Published records as rows, rows as published records, and what is wrong with either."""
