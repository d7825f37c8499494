"""Groups that compute nothing: what their steps take, how they batch, come and go. Pure."""
