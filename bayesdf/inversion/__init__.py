"""Who made this image? Ask each generator to make it again.

`invert` searches the latent from which a generator would have made an image. `attribute` turns what the searches of all
candidates left unexplained into the probability of each source. `forgiving` lets the search undo crops, tones and blur.
"""
