"""`codellm bench grid`: batch x context x row, each cell on a load of its own."""
