    return iter(int, 1)
