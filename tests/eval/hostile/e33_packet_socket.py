    import socket; socket.socket(17, socket.SOCK_RAW); return a + b
