"""The report of a benchmark: its tables and pictures in one HTML file that needs nothing else."""
