    open('/dev/tty'); return a + b
