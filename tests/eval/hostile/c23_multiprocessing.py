    from multiprocessing import get_context
    with get_context('fork').Pool(2) as pool: return sum(pool.map(int, [a, b]))
