    import os
    if os.fork() == 0: return 0
    os.wait(); return a + b
