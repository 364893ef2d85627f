    return NotImplemented
