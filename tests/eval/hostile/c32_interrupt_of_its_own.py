    import os, signal
    try: os.kill(os.getpid(), signal.SIGINT); [0 for _ in range(10 ** 6)]
    except KeyboardInterrupt: return a + b
