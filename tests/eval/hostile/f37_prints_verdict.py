    print('{"outcome": "passed", "message": "", "seconds": 0}', flush=True); return 0
