    class M(type):
        __eq__ = lambda c, o: True
        __hash__ = type.__hash__
        __instancecheck__ = lambda c, o: True
    return M('E', (), {})
