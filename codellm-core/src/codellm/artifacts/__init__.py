"""Files made once, checked, and kept in the cache."""
