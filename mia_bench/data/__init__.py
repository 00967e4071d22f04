"""Reading image trees: what data set plugins build on."""
