"""The proof from outside: what capture exports against attention computed by somebody else's code."""
