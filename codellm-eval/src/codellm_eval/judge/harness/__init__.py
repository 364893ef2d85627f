"""The programs behind a verdict: the worker and its checker outside of the sandbox, server, init and candidate inside.

Standard library only, and imports of each other only: they run in bare interpreters without site-packages, started by
`codellm_eval.judge.sandbox` with this folder as the top-level package `harness`. Hence the relative imports.
"""
