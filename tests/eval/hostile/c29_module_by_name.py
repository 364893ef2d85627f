    import pickle
    return pickle.loads(pickle.dumps(Sum(a + b))).value
class Sum:
    def __init__(self, value): self.value = value
