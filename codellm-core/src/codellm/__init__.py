"""Optimized inference of code language models, and honest evaluation of what each optimization costs."""
