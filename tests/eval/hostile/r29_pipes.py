    import os
    x = []
    while True: p = os.pipe(); os.set_blocking(p[1], False); x.append(p); os.write(p[1], bytes(65536))
