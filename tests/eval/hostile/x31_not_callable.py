    return 3
add = 3
