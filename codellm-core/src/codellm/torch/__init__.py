"""What torch backends share, behind the extra `codellm-core[torch]`: nothing else of codellm imports this package.

`decoder` computes, `cache` remembers, `sampling` draws; an `Engine` is one way of having the three done (our own
decoder, or transformers'), and `TorchModel` runs many sequences on an engine.
"""
