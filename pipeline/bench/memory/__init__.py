"""How much memory an audit takes as its data set grows."""
