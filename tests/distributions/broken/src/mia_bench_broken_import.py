raise ImportError("no module named unobtainium")
