    class E(Exception):
        def __str__(s): raise s
        __repr__ = __str__
    raise E('\udcff\x1b[2J\n' * 1000)
