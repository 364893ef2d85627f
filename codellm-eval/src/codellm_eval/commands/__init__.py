"""Commands of `codellm`, named by entry points of the group `codellm.commands`."""
