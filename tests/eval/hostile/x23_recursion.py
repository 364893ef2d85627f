    return add(a, b)
