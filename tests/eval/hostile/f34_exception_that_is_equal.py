    class E(BaseException):
        __eq__ = lambda s, o: True
        def __reduce__(s): raise s
    raise E(E(E()))
