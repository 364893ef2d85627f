    raise ValueError('x' * (3 << 20))
