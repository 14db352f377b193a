"""Made-up nuclei: outlines nobody had to draw, and tissue painted over them.

`masks` lays nuclei out, `renderer` gives them the colours of a slide. Pairs of
the two teach a network where nuclei are without one outlined by hand.
"""
