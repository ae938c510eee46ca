"""One trainer for every learned method."""
