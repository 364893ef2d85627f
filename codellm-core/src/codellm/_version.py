"""The version, one number for all codellm packages."""

__version__ = "0.1.0"
