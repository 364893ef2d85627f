    import mmap, os
    f = open('m', 'wb+'); f.truncate(4096); m = mmap.mmap(f.fileno(), 4096); f.truncate(0); return m[0]
