"""Where in the picture is the detector unsure? One file for each method of maps, and tests of whether maps are true."""
