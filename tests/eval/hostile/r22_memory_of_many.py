    import os, time
    for _ in range(20):
        if os.fork() == 0:
            x = bytearray(b'x') * (200 << 20); time.sleep(60); os._exit(0)
    time.sleep(60)
