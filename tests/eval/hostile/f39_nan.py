    return float('nan')
