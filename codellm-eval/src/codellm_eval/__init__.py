"""Evaluation of whatever backends codellm discovers."""
