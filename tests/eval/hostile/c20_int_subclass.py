    return type('N', (int,), {})(a + b)
