    import re; return re.match('(a+)+b', 'a' * 60)
