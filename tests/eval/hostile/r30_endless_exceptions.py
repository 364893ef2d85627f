    try: return add(a, b)
    except RecursionError: raise ExceptionGroup('x', [ValueError()] * 10 ** 5)
