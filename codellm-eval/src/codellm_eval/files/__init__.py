"""Files that a run leaves and reads back: whole or not at all, line by line, and what they were made with."""
