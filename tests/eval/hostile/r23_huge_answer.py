    return 'x' * (64 << 20)
