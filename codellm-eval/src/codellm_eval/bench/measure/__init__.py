"""What the process of a row does: load, time, weigh, score."""
