    from multiprocessing import shared_memory
    m = shared_memory.SharedMemory(create=True, size=64)
    m.buf[0] = a + b; x = m.buf[0]; m.close(); m.unlink()
    return x
