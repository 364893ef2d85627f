    import sys; sys.modules.clear(); raise ValueError('x')
