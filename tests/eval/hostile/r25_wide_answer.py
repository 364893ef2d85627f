    x = [0]
    for _ in range(60): x = [x, x]
    return x
