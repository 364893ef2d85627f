    import warnings, sys
    warnings.simplefilter('error'); sys.settrace(lambda *x: None); sys.setrecursionlimit(5000)
    return a + b
