"""The general recipe: any data set, any size of the model, any sequence of the paper's table 1."""
