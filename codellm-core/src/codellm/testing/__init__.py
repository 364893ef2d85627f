"""The conformance kit: it checks that a backend keeps the contracts of `Backend`, `Model` and `Tokenizer`.

    pip install "codellm-core[testing]"
    pytest --codellm-backend NAME --codellm-model MODEL

Without a file on the command line exactly the kit runs, whatever `testpaths` says; beside other tests, name it with
`--pyargs codellm.testing`. pytest's own options (-v, -x, -k) work as ever.

    --codellm-backend NAME      the backend to check
    --codellm-model MODEL       what it loads; by default codellm-demo. A small model: every check is a second or less
    --codellm-spec FIELD=VALUE  a field of LoadSpec: scheme=q8_0, threads=1, device=cuda, context-length=256, …
    --codellm-option KEY=VALUE  an option of the backend's own, as with `codellm generate -o`
    --codellm-tolerance NATS    how far a token's log-probability may move between two ways of computing it

Without a tolerance a batch must equal its sequences run alone to the bit; `score`, `logits` and the log-probabilities
of generation may differ by 0.01 nats, for rounding. With one, all of them may differ by it, and two tokens may take
each other's place where their logits are within twice of it. The summary at the end shows what was measured.

A check that cannot be made with this model is skipped and says why (`pytest -rs`).
"""
