"""Reading and splitting of image files, for data set plugins."""
