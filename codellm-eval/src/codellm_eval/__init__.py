"""Evaluation of whatever backends codellm discovers.

Each of these imports only those before it: errors, files, judge, humaneval, perplexity, stats, bench, report, grid,
commands. `plugin` tells codellm what is here.
"""
