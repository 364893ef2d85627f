    return lambda *x: True
