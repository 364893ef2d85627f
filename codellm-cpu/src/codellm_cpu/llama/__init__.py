"""The llama.cpp runtime: a GGUF file, its native handles, its tokenizer and the scheduler of its sequences."""
