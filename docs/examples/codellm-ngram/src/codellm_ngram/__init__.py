"""An n-gram model of a folder of Python files, as a codellm backend."""
