    def up(n): return 0 if n == 0 else 1 + up(n - 1)
    return a + b if up(900) == 900 else 0
