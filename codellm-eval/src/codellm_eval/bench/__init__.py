"""`codellm bench`: what each backend and scheme costs in time, memory and quality, each row in a process of its own.

Its rooms follow a row, and each imports only those before it: ask, records, show, process, measure; `benchmark` leads.
"""
