    raise StopIteration(a + b)
