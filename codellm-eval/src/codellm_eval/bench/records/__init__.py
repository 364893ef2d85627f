"""What is known of rows: filled as they report, written, read back."""
