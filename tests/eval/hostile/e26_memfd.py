    import os; os.memfd_create('x'); return a + b
