"""`codellm bench`: what each backend and scheme costs in time, memory and quality, each row in a process of its own."""
