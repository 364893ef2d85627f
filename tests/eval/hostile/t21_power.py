    x = 10 ** 10 ** 9
    return x
