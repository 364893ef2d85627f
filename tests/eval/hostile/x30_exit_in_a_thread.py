    import os, threading
    t = threading.Thread(target=os._exit, args=(3,)); t.start(); t.join(); return a + b
