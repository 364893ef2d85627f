    return 3
while True: pass
