    import json, os, time
    m = json.dumps(['call', 7, [['tuple'], ['dict'], ['tuple', ['n', 0], ['n', 1]]], ['n', 2]]).encode()
    for d in range(3, 64):
        try: os.write(d, len(m).to_bytes(4, 'big') + m)
        except OSError: pass
    time.sleep(60)
