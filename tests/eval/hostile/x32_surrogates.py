    return '\ud800'
