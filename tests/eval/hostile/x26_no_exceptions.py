    return 0
import builtins
del builtins.BaseException, builtins.Exception, builtins.len, builtins.type, builtins.isinstance
