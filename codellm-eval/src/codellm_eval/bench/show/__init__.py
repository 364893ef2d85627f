"""What people see of records: tables, notes, comparisons."""
