"""What is wanted: rows, workloads and the plan that every row follows."""
