"""Whether two measurements differ, or only their noise does."""
