"""The backends of the extra `codellm-cpu[torch]`: codellm.torch on the CPU."""
