"""Published JSON files of any size as streams of records."""
