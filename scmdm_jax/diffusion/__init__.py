"""The method as pure functions: imports nothing else of ours.

Legend for every docstring here: `B` batch, `L` length, `V` vocabulary with the mask,
`D` width, `T` sampling steps; `x_0` clean tokens, `x_t` partly masked tokens, `alpha_t`
the probability that a token is still visible at time `t`.
"""
