"""Finding plugins, guarding what they do, and what they bring by name."""
