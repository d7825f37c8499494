"""How a model is spread over ranks: the mesh (pure), the collectives, the one seam of expert parallelism."""
